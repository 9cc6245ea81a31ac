use std::panic::resume_unwind;
use std::thread;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};
use burn::train::TrainOutput;
use nsmc_data::Batch;

use crate::{ClassificationTask, StepOutput};

/// Copies of what is trained on further devices, each of which computes its share of every batch.
///
/// The first device adds up the gradients of the shares, applies regulariser, clipping and optimiser to
/// the sum, and gives the copies the weights that it changed. So batches, their order, steps and
/// schedule are those of a training on one device. The weights differ by rounding, and by what dropout
/// draws.
///
/// Deviation: in burn-train's distributed strategy and PyTorch's `DistributedDataParallel` each device
/// has batches of its own and an optimiser: with the devices the effective batch grows, and a recipe
/// would be another one.
#[derive(Default)]
pub struct Replicas {
    replicas: Vec<Replica>,
}

struct Replica {
    /// Records gradients.
    device: Device,
    task: ClassificationTask,
}

impl Replicas {
    /// Copies `task` to each of the further devices; without any there are no replicas.
    pub fn new(task: &ClassificationTask, devices: &[Device]) -> Self {
        let replica = |device: &Device| {
            let device = device.clone().autodiff();
            Replica { task: task.clone().fork(&device), device }
        };
        Self { replicas: devices.iter().map(replica).collect() }
    }

    /// Whether there is no device but the first.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// The forward and backward passes of one step, each device's on a thread of its own; the loss is
    /// the mean over the reviews of the whole batch. What is given back is on the batch's device.
    pub(crate) fn train_step(
        &self,
        task: &ClassificationTask,
        batch: &Batch,
    ) -> TrainOutput<StepOutput> {
        let first = batch.labels.device();
        let devices: Vec<Device> = std::iter::once(&first)
            .chain(self.replicas.iter().map(|replica| &replica.device))
            .cloned()
            .collect();
        let reviews = batch.reviews.len();
        let mut shares = batch.shares(&devices).into_iter();
        let own = shares.next();
        let outputs: Vec<TrainOutput<StepOutput>> = thread::scope(|scope| {
            let others: Vec<_> = shares
                .zip(&self.replicas)
                .map(|(share, replica)| {
                    let task = replica.task.clone();
                    scope.spawn(move || task.share_step(&share, reviews))
                })
                .collect();
            let own = own.map(|share| task.share_step(&share, reviews));
            let others =
                others.into_iter().map(|other| other.join().unwrap_or_else(|e| resume_unwind(e)));
            own.into_iter().chain(others).collect()
        });

        let mut gradients = GradientsAccumulator::new();
        let mut items = Vec::with_capacity(outputs.len());
        for TrainOutput { grads, item } in outputs {
            gradients.accumulate(task, grads.to_device(&first.clone().inner(), task));
            items.push(item.on(&first));
        }
        TrainOutput { grads: gradients.grads(), item: StepOutput::joined(items) }
    }

    /// Copies the weights that train to every device.
    pub(crate) fn follow(&mut self, task: &ClassificationTask) {
        if self.is_empty() {
            return;
        }
        let mut trained = Trained::default();
        task.visit(&mut trained);
        for Replica { device, task } in &mut self.replicas {
            *task = task.clone().map(&mut Take { trained: &trained, device });
        }
    }
}

/// The weights that train, in burn's container of a tensor for each parameter.
#[derive(Default)]
struct Trained(GradientsParams);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weight = param.val();
        if weight.is_require_grad() {
            self.0.register(param.id, weight.inner());
        }
    }
}

struct Take<'a> {
    trained: &'a Trained,
    device: &'a Device,
}

impl ModuleMapper for Take<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(weight) = self.trained.0.get::<D>(param.id) else { return param };
        let weight = weight.to_device(&self.device.clone().inner());
        param.map(|_| Tensor::from_inner(weight).require_grad())
    }
}
