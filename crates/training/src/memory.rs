use burn::tensor::Device;

/// The memory held, in MiB; none where it cannot be read.
///
/// On a CPU it is the largest resident memory of the process so far. On a GPU it is what the device's
/// pool reserves at this moment: a caller asks repeatedly and keeps the largest.
pub fn peak_memory_mib(device: &Device) -> Option<f64> {
    const MIB: f64 = (1 << 20) as f64;
    match device.memory_pool_usage() {
        // Before its first tensor a GPU's pool holds nothing; the process's memory is not the GPU's.
        Some(usage) => (usage.bytes_reserved > 0).then(|| usage.bytes_reserved as f64 / MIB),
        None => peak_resident_kib().map(|kib| kib / 1024.0),
    }
}

fn peak_resident_kib() -> Option<f64> {
    peak_in(&fs_err::read_to_string("/proc/self/status").ok()?)
}

/// The largest resident memory in what Linux says of a process, in KiB.
fn peak_in(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_that_of_resident_memory() {
        let status = "VmPeak:\t 9999999 kB\nVmSize:\t 8888888 kB\nVmHWM:\t  262144 kB\n\
                      VmRSS:\t  131072 kB\nThreads:\t2\n";
        assert_eq!(peak_in(status), Some(262_144.0));
        assert_eq!(peak_in("VmPeak:\t 9999999 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_was_given_back_counts() {
        let block = vec![1u8; 256 << 20];
        assert_eq!(block.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 256 << 20);
        drop(block);
        let peak = peak_memory_mib(&Device::flex()).unwrap();
        assert!(peak >= 256.0, "{peak}");
    }
}
