use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::tensor::Tensor;

/// How many parameters a model has and how many of them train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterCounts {
    /// Parameters that take a gradient.
    pub trainable: usize,
    /// Parameters in all.
    pub total: usize,
}

impl ParameterCounts {
    /// Counts a module's parameters, those of `trainable` apart, without making the ones that are
    /// not used yet.
    pub fn of<M: Module>(module: &M, trainable: &ParamGroup) -> Self {
        let mut counts = Self { trainable: 0, total: 0 };
        each_parameter(module, |path, id, count| {
            counts.total += count;
            if trainable.matches(&id, Some(path)) {
                counts.trainable += count;
            }
        });
        counts
    }
}

/// The path of every parameter of a module.
pub(crate) fn paths<M: Module>(module: &M) -> Vec<String> {
    let mut paths = Vec::new();
    each_parameter(module, |path, _, _| paths.push(path.to_owned()));
    paths
}

/// Shows `see` the path, the id and the number of values of each parameter of a module.
fn each_parameter<M: Module>(module: &M, see: impl FnMut(&str, ParamId, usize)) {
    struct Visitor<F> {
        path: Vec<String>,
        see: F,
    }
    impl<F: FnMut(&str, ParamId, usize)> ModuleVisitor for Visitor<F> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            (self.see)(&self.path.join("."), param.id, param.lazy_shape().num_elements());
        }
    }
    module.visit(&mut Visitor { path: Vec::new(), see });
}
