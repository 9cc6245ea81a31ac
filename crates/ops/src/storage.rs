//! Between burn's tensors and slices.

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_flex::FlexTensor;

use crate::parallel;

/// Whether a device, or the one beneath an autodiff device, is the CPU: burn's `flex`, the one that this
/// crate has kernels for.
pub fn is_cpu(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// Whether the kernels take these tensors: on `flex`, and `f32`.
pub(crate) fn has_kernel<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && is_cpu(&tensor.device())
}

/// The elements, row by row.
pub(crate) struct Elements(FlexTensor);

impl Elements {
    pub(crate) fn of(tensor: FlexTensor) -> Self {
        if tensor.is_contiguous() { Self(tensor) } else { Self(tensor.to_contiguous()) }
    }

    pub(crate) fn floats(&self) -> &[f32] {
        self.0.as_slice().expect("a contiguous tensor of f32")
    }

    pub(crate) fn into_tensor(self) -> FlexTensor {
        self.0
    }

    pub(crate) fn ids(&self) -> Vec<usize> {
        let id = |id: i64| usize::try_from(id).expect("ids of rows are not negative");
        match self.0.dtype() {
            DType::I64 => {
                let ids: &[i64] = self.0.as_slice().expect("a contiguous tensor of i64");
                ids.iter().map(|&value| id(value)).collect()
            }
            DType::I32 => {
                let ids: &[i32] = self.0.as_slice().expect("a contiguous tensor of i32");
                ids.iter().map(|&value| id(i64::from(value))).collect()
            }
            other => panic!("ids of rows are i32 or i64, not {other:?}"),
        }
    }
}

/// Runs `write` on the elements of a tensor, in place where nothing else holds them.
pub(crate) fn update(mut tensor: FlexTensor, write: impl FnOnce(&mut [f32])) -> FlexTensor {
    let elements = tensor.layout().num_elements();
    let whole = tensor.is_contiguous() && tensor.bytes().len() == elements * size_of::<f32>();
    if whole && let Some(floats) = tensor.try_storage_mut::<f32>() {
        write(floats);
        return tensor;
    }
    let shape = tensor.layout().shape().to_vec();
    let mut floats = parallel::copied(Elements::of(tensor).floats());
    write(&mut floats);
    new(floats, shape)
}

/// A tensor of these elements.
pub(crate) fn new(floats: Vec<f32>, shape: impl Into<Vec<usize>>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(floats, shape.into()))
}

/// Rows and their width: all dimensions but the last, and the last.
pub(crate) fn rows_and_width(tensor: &FlexTensor) -> (usize, usize) {
    let shape = tensor.layout().shape();
    let width = shape.last().copied().unwrap_or(1);
    (shape.num_elements() / width.max(1), width)
}
