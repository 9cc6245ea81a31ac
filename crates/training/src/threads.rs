use burn::tensor::Device;

/// Runs `compute`; for a CPU on one of the threads that its kernels are divided among, for from any
/// other, each kernel would wake them up and wait for them. A GPU is spoken to by one thread.
///
/// It must wait for nothing that another thread computes.
pub fn among_the_threads<T: Send>(device: &Device, compute: impl FnOnce() -> T + Send) -> T {
    let cpu = device.clone().inner() == Device::flex();
    if cpu { rayon::scope(|_| compute()) } else { compute() }
}
