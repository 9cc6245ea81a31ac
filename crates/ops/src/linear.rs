use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::{Dispatch, Flex};
use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::extension::FlexKernels;
use crate::math::add;
use crate::matrix::{Term, View, sum_parallel};
use crate::parallel;
use crate::precision::product;
use crate::storage::{Elements, has_kernel, new, rows_and_width};

/// Padded batches have a multiple of 16 rows.
const PARTS: usize = 16;
/// A batch of fine-tuning has fewer.
const MANY_ROWS: usize = 4096;

/// `x · W + b`, or `x · W` of a layer without a bias.
///
/// # Shapes
/// - x: `[rows, in]`
/// - the layer's weight: `[in, out]`, and bias: `[out]`
/// - output: `[rows, out]`
///
/// # Panics
///
/// If `x` is not as wide as the layer takes it.
pub fn linear(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    match layer.bias.as_ref().filter(|_| has_kernel(&x)) {
        Some(bias) => linear_kernel(x, layer.weight.val(), bias.val()),
        None => composed(layer, x),
    }
}

fn composed(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    let parts = parts(x.dims()[0]);
    composed_in_parts(x, layer.weight.val(), layer.bias.as_ref().map(Param::val), parts)
}

fn composed_in_parts(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    parts: usize,
) -> Tensor<2> {
    let ([rows, width], [_, out]) = (x.dims(), weight.dims());
    if parts == 1 {
        let output = product(x, weight);
        return match bias {
            Some(bias) => output + bias.unsqueeze(),
            None => output,
        };
    }
    let output = product(x.reshape([parts, rows / parts, width]), weight.unsqueeze::<3>());
    let output = match bias {
        Some(bias) => output + of_each_part(bias, parts),
        None => output,
    };
    output.reshape([rows, out])
}

/// Parts in which burn's kernels compute this many rows.
///
/// A parameter's gradient is a sum over rows. Where a batch has very many of them and the parameter is
/// small, a GPU adds them up on few of its processors; those of each part, and then of all parts, on
/// as many times more.
pub(crate) fn parts(rows: usize) -> usize {
    if rows >= MANY_ROWS && rows.is_multiple_of(PARTS) { PARTS } else { 1 }
}

/// A parameter of every row's, for each part: `[parts, 1, width]`.
pub(crate) fn of_each_part(parameter: Tensor<1>, parts: usize) -> Tensor<3> {
    let width = parameter.dims()[0];
    parameter.unsqueeze::<3>().expand([parts, 1, width])
}

/// `x · W`, never in bfloat16 (see [`set_bf16_products`](crate::set_bf16_products)).
///
/// # Shapes
/// - x: `[rows, in]`
/// - weight: `[in, out]`
/// - output: `[rows, out]`
///
/// # Panics
///
/// If `x` is not as wide as the weight is high.
pub fn multiply(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    if !has_kernel(&x) {
        return x.matmul(weight);
    }
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(<Dispatch as FlexKernels>::multiply(x, weight))
}

fn linear_kernel(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let output = <Dispatch as FlexKernels>::linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    );
    Tensor::from_dispatch(output)
}

/// LoRA's update of a linear layer.
pub struct LowRank {
    /// The update's input where it is not the layer's own, that is, after dropout: `[rows, in]`.
    pub dropped: Option<Tensor<2>>,
    /// `[in, rank]`
    pub a: Tensor<2>,
    /// `[rank, out]`
    pub b: Tensor<2>,
    /// Multiplies the update.
    pub scaling: f64,
}

/// `x · W + b + scaling · (x · A) · B`, the product `A · B` never formed.
///
/// # Shapes
/// - x: `[rows, in]`
/// - the layer's weight: `[in, out]`, and bias: `[out]`
/// - output: `[rows, out]`
///
/// # Panics
///
/// If the shapes of `x`, the layer and the update do not fit each other.
pub fn low_rank_linear(layer: &Linear, x: Tensor<2>, update: LowRank) -> Tensor<2> {
    match layer.bias.as_ref().filter(|_| has_kernel(&x)) {
        Some(bias) => low_rank_kernel(x, layer.weight.val(), bias.val(), update),
        None => {
            let dropped = update.dropped.unwrap_or_else(|| x.clone());
            let low = product(product(dropped, update.a), update.b);
            composed(layer, x) + low * update.scaling
        }
    }
}

fn low_rank_kernel(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, update: LowRank) -> Tensor<2> {
    let same = update.dropped.is_none();
    let dropped = update.dropped.unwrap_or_else(|| x.clone());
    let output = <Dispatch as FlexKernels>::low_rank_linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        dropped.into_dispatch(),
        update.a.into_dispatch(),
        update.b.into_dispatch(),
        update.scaling,
        same,
    );
    Tensor::from_dispatch(output)
}

/// A matrix in whatever order its elements lie: weights of a PyTorch file are transposed views.
struct Matrix(FlexTensor);

impl Matrix {
    fn new(tensor: FlexTensor) -> Self {
        let ordered = tensor.layout().strides().iter().all(|&stride| stride > 0);
        if ordered { Self(tensor) } else { Self(tensor.to_contiguous()) }
    }

    fn view(&self) -> (&[f32], View) {
        let layout = self.0.layout();
        let (shape, strides) = (layout.shape(), layout.strides());
        let view = View {
            offset: layout.start_offset(),
            rows: shape[0],
            columns: shape[1],
            row: strides[0] as usize,
            column: strides[1] as usize,
        };
        (self.0.storage(), view)
    }

    fn transposed(&self) -> (&[f32], View) {
        let (elements, view) = self.view();
        (elements, view.transposed())
    }

    fn rows(&self) -> usize {
        self.0.layout().shape()[0]
    }

    fn columns(&self) -> usize {
        self.0.layout().shape()[1]
    }
}

/// `factor · left · right`.
fn multiplied(left: (&[f32], View), right: (&[f32], View), factor: f32) -> FlexTensor {
    new(sum_parallel(&[Term { left, right, factor }], None), [left.1.rows, right.1.columns])
}

pub(crate) fn product_of(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    multiplied(Matrix::new(x).view(), Matrix::new(weight).view(), 1.0)
}

pub(crate) fn forward(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
    let (x, weight) = (Matrix::new(x), Matrix::new(weight));
    let term = Term { left: x.view(), right: weight.view(), factor: 1.0 };
    let output = sum_parallel(&[term], Some(Elements::of(bias).floats()));
    new(output, [x.rows(), weight.columns()])
}

/// The output, and `dropped · A`, which the gradient needs.
pub(crate) fn low_rank_forward(
    x: FlexTensor,
    weight: FlexTensor,
    bias: FlexTensor,
    dropped: FlexTensor,
    a: FlexTensor,
    b: FlexTensor,
    scaling: f64,
) -> (FlexTensor, FlexTensor) {
    let (x, weight) = (Matrix::new(x), Matrix::new(weight));
    let (dropped, a, b) = (Matrix::new(dropped), Matrix::new(a), Matrix::new(b));
    let low = Matrix(multiplied(dropped.view(), a.view(), 1.0));
    let terms = [
        Term { left: x.view(), right: weight.view(), factor: 1.0 },
        Term { left: low.view(), right: b.view(), factor: scaling as f32 },
    ];
    let output = sum_parallel(&terms, Some(Elements::of(bias).floats()));
    (new(output, [x.rows(), weight.columns()]), low.0)
}

fn register(gradients: &mut Gradients, node: Option<NodeId>, make: impl FnOnce() -> FlexTensor) {
    if let Some(node) = node {
        gradients.register::<Flex>(node, make());
    }
}

/// The sum of its rows.
pub(crate) fn bias_gradient(gradient: &FlexTensor) -> FlexTensor {
    let (rows, width) = rows_and_width(gradient);
    let gradient = Elements::of(gradient.clone());
    let sums = parallel::sum_rows(rows, width, |first, count, sums| {
        let rows = gradient.floats()[first * width..(first + count) * width].chunks_exact(width);
        rows.for_each(|row| add(sums, row));
    });
    new(sums, [width])
}

/// Parents: x, weight.
#[derive(Debug)]
pub(crate) struct MultiplyBackward;

impl Backward<Flex, 2> for MultiplyBackward {
    /// x and the weight.
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Matrix::new(gradients.consume::<Flex>(&ops.node));
        let (x, weight) = ops.state;
        let nodes = ops.parents.map(|node| node.map(|node| node.id));
        register_factors(gradients, nodes, &gradient, x, weight);
    }
}

/// `dx = g Wᵀ` and `dW = xᵀ g`.
fn register_factors(
    gradients: &mut Gradients,
    [x_node, weight_node]: [Option<NodeId>; 2],
    gradient: &Matrix,
    x: FlexTensor,
    weight: FlexTensor,
) {
    register(gradients, weight_node, || {
        multiplied(Matrix::new(x).transposed(), gradient.view(), 1.0)
    });
    register(gradients, x_node, || {
        multiplied(gradient.view(), Matrix::new(weight).transposed(), 1.0)
    });
}

/// Parents: x, weight, bias.
#[derive(Debug)]
pub(crate) struct LinearBackward;

impl Backward<Flex, 3> for LinearBackward {
    /// x and the weight.
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (x, weight) = ops.state;
        let [x_node, weight_node, bias_node] = ops.parents.map(|node| node.map(|node| node.id));
        register(gradients, bias_node, || bias_gradient(&gradient));
        register_factors(gradients, [x_node, weight_node], &Matrix::new(gradient), x, weight);
    }
}

/// What the gradient of a layer with an update needs.
#[derive(Clone, Debug)]
pub(crate) struct LowRankSaved {
    pub(crate) x: FlexTensor,
    pub(crate) weight: FlexTensor,
    pub(crate) dropped: FlexTensor,
    pub(crate) a: FlexTensor,
    pub(crate) b: FlexTensor,
    /// `dropped · A`
    pub(crate) low: FlexTensor,
    pub(crate) scaling: f64,
    /// Whether `dropped` is `x`.
    pub(crate) same: bool,
}

/// Parents: x, weight, bias, dropped, A, B.
#[derive(Debug)]
pub(crate) struct LowRankBackward;

impl Backward<Flex, 6> for LowRankBackward {
    type State = LowRankSaved;

    /// With `g` the output's gradient and `h = scaling · g · Bᵀ`: `dB = scaling · (dropped · A)ᵀ g`,
    /// `dA = droppedᵀ h`, `dx = g Wᵀ`, and `h Aᵀ` for the update's input.
    fn backward(self, ops: Ops<Self::State, 6>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let saved = ops.state;
        let [x_node, weight_node, bias_node, dropped_node, a_node, b_node] =
            ops.parents.map(|node| node.map(|node| node.id));
        let scaling = saved.scaling as f32;
        register(gradients, bias_node, || bias_gradient(&gradient));
        let gradient = Matrix::new(gradient);
        register(gradients, weight_node, || {
            multiplied(Matrix::new(saved.x).transposed(), gradient.view(), 1.0)
        });
        let (a, b) = (Matrix::new(saved.a), Matrix::new(saved.b));
        register(gradients, b_node, || {
            multiplied(Matrix(saved.low).transposed(), gradient.view(), scaling)
        });
        let low = Matrix(multiplied(gradient.view(), b.transposed(), scaling));
        register(gradients, a_node, || {
            // As `(hᵀ dropped)ᵀ`: what would be transposed first is much larger than this.
            let a = multiplied(low.transposed(), Matrix::new(saved.dropped).view(), 1.0);
            a.transpose(0, 1).to_contiguous()
        });
        if !saved.same {
            register(gradients, dropped_node, || multiplied(low.view(), a.transposed(), 1.0));
        }
        register(gradients, x_node, || {
            let weight = Matrix::new(saved.weight);
            let terms = [
                Term { left: gradient.view(), right: weight.transposed(), factor: 1.0 },
                Term { left: low.view(), right: a.transposed(), factor: 1.0 },
            ];
            let x = sum_parallel(if saved.same { &terms } else { &terms[..1] }, None);
            new(x, [gradient.rows(), weight.rows()])
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extension::tests::{check_gradients, random};

    fn affine(inputs: &[Tensor<2>], weight: Tensor<2>) -> Tensor<2> {
        inputs[0].clone().matmul(weight) + inputs[2].clone()
    }

    #[test]
    fn a_linear_layer_is_the_composition() {
        // The second size is one for the processor's own kernel, if it has one.
        let sizes = [[13, 19, 23], [70, 130, 90]];
        let cases = sizes.into_iter().flat_map(|size| [(size, false), (size, true)]);
        for ([rows, input, out], transposed) in cases {
            let shape = if transposed { [out, input] } else { [input, out] };
            let weight = |inputs: &[Tensor<2>]| {
                let weight = inputs[1].clone();
                if transposed { weight.transpose() } else { weight }
            };
            let inputs =
                [random([rows, input], 1.0, 1), random(shape, 1.0, 2), random([1, out], 1.0, 3)];
            check_gradients(
                &inputs,
                |inputs| {
                    let bias = inputs[2].clone().flatten(0, 1);
                    linear_kernel(inputs[0].clone(), weight(inputs), bias)
                },
                |inputs| affine(inputs, weight(inputs)),
            );
        }
    }

    #[test]
    fn a_product_is_the_composition() {
        let inputs = [random([13, 19], 1.0, 1), random([23, 19], 1.0, 2)];
        check_gradients(
            &inputs,
            |inputs| multiply(inputs[0].clone(), inputs[1].clone().transpose()),
            |inputs| inputs[0].clone().matmul(inputs[1].clone().transpose()),
        );
    }

    #[test]
    fn parts_change_nothing() {
        assert_eq!([parts(4080), parts(4096), parts(4100)], [1, 16, 1]);
        let inputs = [random([12, 19], 1.0, 1), random([19, 23], 1.0, 2), random([1, 23], 1.0, 3)];
        for bias in [false, true] {
            check_gradients(
                &inputs[..if bias { 3 } else { 2 }],
                |inputs| {
                    let bias = inputs.get(2).map(|bias| bias.clone().flatten(0, 1));
                    composed_in_parts(inputs[0].clone(), inputs[1].clone(), bias, 4)
                },
                |inputs| {
                    let output = inputs[0].clone().matmul(inputs[1].clone());
                    inputs.get(2).map_or(output.clone(), |bias| output + bias.clone())
                },
            );
        }
    }

    #[test]
    fn an_update_of_low_rank_is_the_composition() {
        let inputs = |[rows, input, out]: [usize; 3]| {
            [
                random([rows, input], 1.0, 1),
                random([input, out], 1.0, 2),
                random([1, out], 1.0, 3),
                random([input, 5], 0.2, 4),
                random([5, out], 0.5, 5),
                random([rows, input], 1.0, 6),
            ]
        };
        let sizes = [[13, 19, 23], [70, 130, 90]];
        for (size, dropped) in sizes.into_iter().flat_map(|size| [(size, None), (size, Some(5))]) {
            let inputs = inputs(size);
            check_gradients(
                &inputs[..dropped.map_or(5, |last| last + 1)],
                |inputs| {
                    let update = LowRank {
                        dropped: dropped.map(|index| inputs[index].clone()),
                        a: inputs[3].clone(),
                        b: inputs[4].clone(),
                        scaling: 1.7,
                    };
                    let bias = inputs[2].clone().flatten(0, 1);
                    low_rank_kernel(inputs[0].clone(), inputs[1].clone(), bias, update)
                },
                |inputs| {
                    let dropped = inputs[dropped.unwrap_or(0)].clone();
                    let update = dropped.matmul(inputs[3].clone()).matmul(inputs[4].clone());
                    affine(inputs, inputs[1].clone()) + update * 1.7
                },
            );
        }
    }
}
