use burn::module::ParamGroup;
use burn::optim::{
    DynOptimizer, DynState, LearningRate, ModuleOptimizer, Optimizer, StateSink, StateSource,
};
use burn::tensor::Device;
use burn::tensor::kind::BridgeTensor;

/// An optimiser whose state, read from a record, is put on its device.
///
/// burn puts it on the default device until the next step. In a program with CUDA that is the first
/// GPU: a training on the CPU may have none, and one on another GPU has no business there.
pub(crate) struct OnDevice<O> {
    optimizer: O,
    device: Device,
}

impl<O: Optimizer> OnDevice<O> {
    pub(crate) fn new(optimizer: O, device: &Device) -> Self {
        Self { optimizer, device: device.clone() }
    }

    /// For all parameters: the first group of an optimiser, which others may follow.
    pub(crate) fn for_all(self) -> ModuleOptimizer {
        // burn's first group cannot be one of these; the last that matches a parameter is its own.
        let first = ModuleOptimizer::from(self.optimizer.clone());
        first.with_group(ParamGroup::all(), self, None)
    }
}

impl<O: Optimizer> DynOptimizer for OnDevice<O> {
    fn step_dyn(
        &self,
        rank: usize,
        learning_rate: LearningRate,
        tensor: BridgeTensor,
        gradient: BridgeTensor,
        state: Option<DynState>,
    ) -> (BridgeTensor, Option<DynState>) {
        self.optimizer.step_dyn(rank, learning_rate, tensor, gradient, state)
    }

    fn to_device_dyn(&self, state: DynState, device: &Device) -> DynState {
        self.optimizer.to_device_dyn(state, device)
    }

    fn state_flatten(&self, prefix: &str, state: &DynState, out: &mut StateSink) {
        self.optimizer.state_flatten(prefix, state, out);
    }

    fn state_unflatten(
        &self,
        rank: usize,
        prefix: &str,
        source: &mut StateSource,
        _: &Device,
    ) -> Option<DynState> {
        self.optimizer.state_unflatten(rank, prefix, source, &self.device)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::optim::{GradientsParams, RecordState};
    use burn::tensor::Tensor;

    use super::*;

    /// An optimiser that changes nothing, and whose state says where it was put.
    #[derive(Clone)]
    struct Still;

    #[derive(Clone)]
    struct Place {
        autodiff: bool,
    }

    impl RecordState for Place {
        fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
            out.push_scalar(prefix, "autodiff", self.autodiff.into());
        }

        fn state_unflatten(_: &str, _: &mut StateSource, device: &Device) -> Option<Self> {
            Some(Self { autodiff: device.is_autodiff() })
        }
    }

    impl Optimizer for Still {
        type State<const D: usize> = Place;

        fn step<const D: usize>(
            &self,
            _: LearningRate,
            tensor: Tensor<D>,
            _: Tensor<D>,
            state: Option<Place>,
        ) -> (Tensor<D>, Option<Place>) {
            (tensor, Some(state.unwrap_or(Place { autodiff: false })))
        }

        fn to_device<const D: usize>(state: Place, _: &Device) -> Place {
            state
        }
    }

    #[test]
    fn a_state_is_read_onto_its_optimisers_device() {
        let device = Device::flex().autodiff();
        let model = LinearConfig::new(3, 2).init(&device);
        // The CPU is one device; whether it records gradients tells one handle from another.
        for (device, autodiff) in [(Device::flex(), false), (device, true)] {
            let input = Tensor::<2>::ones([4, 3], &Device::flex().autodiff());
            let loss = model.forward(input).sum();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            let mut optimizer = OnDevice::new(Still, &device).for_all();
            optimizer.step(0.1, model.clone(), gradients);
            let read = OnDevice::new(Still, &device).for_all().load_record(optimizer.to_record());
            let bytes = |optimizer: &ModuleOptimizer| optimizer.into_bytes().unwrap().to_vec();
            assert_eq!(bytes(&read) != bytes(&optimizer), autodiff);
        }
    }
}
