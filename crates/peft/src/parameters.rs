use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
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
        let mut counter =
            Counter { path: Vec::new(), trainable, counts: Self { trainable: 0, total: 0 } };
        module.visit(&mut counter);
        counter.counts
    }
}

struct Counter<'a> {
    path: Vec<String>,
    trainable: &'a ParamGroup,
    counts: ParameterCounts,
}

impl ModuleVisitor for Counter<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let count = param.lazy_shape().num_elements();
        self.counts.total += count;
        if self.trainable.matches(&param.id, Some(&self.path.join("."))) {
            self.counts.trainable += count;
        }
    }
}
