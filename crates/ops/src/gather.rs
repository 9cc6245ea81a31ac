use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, unary};
use burn::backend::{Dispatch, Flex};
use burn::tensor::{Bool, Int, Tensor};
use burn_flex::FlexTensor;

use crate::extension::FlexKernels;
use crate::parallel;
use crate::storage::{Elements, has_kernel, new, rows_and_width};

/// The rows of `table` with these numbers; the row `ignored` gets no gradient, as the padding row of
/// PyTorch's `nn.Embedding`.
///
/// # Shapes
/// - table: `[entries, width]`
/// - ids: `[rows]`
/// - output: `[rows, width]`
///
/// # Panics
///
/// On `flex`, if the table lacks a row. A GPU does not check that.
pub fn gather(table: Tensor<2>, ids: Tensor<1, Int>, ignored: Option<usize>) -> Tensor<2> {
    if !has_kernel(&table) {
        return composed(table, ids, ignored);
    }
    let (table, ids) = (table.into_dispatch(), ids.into_dispatch());
    Tensor::from_dispatch(<Dispatch as FlexKernels>::gather(table, ids, ignored))
}

fn composed(table: Tensor<2>, ids: Tensor<1, Int>, ignored: Option<usize>) -> Tensor<2> {
    let rows = if table.is_tracked() {
        // The values of `select`. Its gradient is added up by burn's kernels for GPUs one row after
        // the other; that of `gather` by atomic additions, all at once and in no fixed order.
        let places = [ids.dims()[0], table.dims()[1]];
        table.gather(0, ids.clone().unsqueeze_dim::<2>(1).expand(places))
    } else {
        table.select(0, ids.clone())
    };
    let Some(ignored) = ignored else { return rows };
    let ignored: Tensor<2, Bool> = ids.equal_elem(ignored as i64).unsqueeze_dim(1);
    rows.clone().mask_where(ignored.expand(rows.dims()), rows.detach())
}

pub(crate) fn forward(table: FlexTensor, ids: &[usize]) -> FlexTensor {
    let (entries, width) = rows_and_width(&table);
    let table = Elements::of(table);
    let mut rows = Vec::with_capacity(ids.len() * width);
    for &id in ids {
        assert!(id < entries, "a table of {entries} rows has no row {id}");
        rows.extend_from_slice(&table.floats()[id * width..(id + 1) * width]);
    }
    new(rows, [ids.len(), width])
}

#[derive(Debug)]
pub(crate) struct GatherBackward;

impl Backward<Flex, 1> for GatherBackward {
    /// Rows of the table, ids, and the row without a gradient.
    type State = (usize, Vec<usize>, Option<usize>);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (entries, ids, ignored) = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| {
            let (_, width) = rows_and_width(&gradient);
            let gradient = Elements::of(gradient);
            let mut table = parallel::zeros(entries * width);
            for (&id, row) in ids.iter().zip(gradient.floats().chunks_exact(width)) {
                if ignored == Some(id) {
                    continue;
                }
                let entry = &mut table[id * width..(id + 1) * width];
                entry.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            new(table, [entries, width])
        });
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::extension::tests::{check_gradients, random};

    #[test]
    #[should_panic(expected = "a table of 7 rows has no row 9")]
    fn a_row_that_the_table_lacks_is_named() {
        let device = Device::flex();
        let table = Tensor::from_data(random([7, 19], 1.0, 5), &device);
        gather(table, Tensor::from_data([4, 9], &device), None);
    }

    #[test]
    fn the_kernel_is_the_composition() {
        let ids = || Tensor::<1, Int>::from_data([4, 0, 2, 2, 0, 6, 2], &Device::flex().autodiff());
        for ignored in [None, Some(0), Some(2)] {
            check_gradients(
                &[random([7, 19], 1.0, 5)],
                |inputs| gather(inputs[0].clone(), ids(), ignored),
                |inputs| composed(inputs[0].clone(), ids(), ignored),
            );
        }
    }
}
