use burn::tensor::Device;

/// The memory held, in MiB: for a CPU the process's largest so far, for a GPU what the device's pool
/// reserves at this moment, of which a caller keeps the largest. None where neither can be read.
pub fn peak_memory_mib(device: &Device) -> Option<f64> {
    const MIB: f64 = (1 << 20) as f64;
    match device.memory_pool_usage() {
        // Before its first tensor a GPU's pool holds nothing; the process's memory is not the GPU's.
        Some(usage) => (usage.bytes_reserved > 0).then(|| usage.bytes_reserved as f64 / MIB),
        None => peak_resident_kib().map(|kib| kib / 1024.0),
    }
}

fn peak_resident_kib() -> Option<f64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_does_not_fall() {
        let device = Device::flex();
        let before = peak_memory_mib(&device).unwrap();
        let block = vec![1u8; 64 << 20];
        assert_eq!(block.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 64 << 20);
        drop(block);
        let after = peak_memory_mib(&device).unwrap();
        assert!(after >= before && after >= 64.0, "{before}, {after}");
    }
}
