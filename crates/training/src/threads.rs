use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use burn::tensor::Device;
use nsmc_ops::is_cpu;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::TrainingError;

/// Batches that are computed at once, at most: each holds its activations in memory.
const AT_ONCE: usize = 4;

/// Runs `compute`: for a CPU on one of the threads that its kernels are divided among, since a kernel that
/// is called from any other thread wakes them up and waits for them. A GPU is spoken to by one thread.
///
/// It must wait for nothing that another thread computes.
pub fn among_the_threads<T: Send>(device: &Device, compute: impl FnOnce() -> T + Send) -> T {
    if is_cpu(device) { rayon::scope(|_| compute()) } else { compute() }
}

/// Divides this process's threads among `parts` pools, or among as many as there are threads.
pub(crate) fn pools(parts: usize) -> Result<Vec<ThreadPool>, TrainingError> {
    let threads = rayon::current_num_threads();
    let parts = parts.clamp(1, threads);
    let pool = |part| {
        let threads = threads / parts + usize::from(part < threads % parts);
        ThreadPoolBuilder::new().num_threads(threads).build()
    };
    Ok((0..parts).map(pool).collect::<Result<_, _>>()?)
}

/// Calls `compute` with each of `count` items, and `take` with what it returns, in the order of the items.
///
/// On a CPU a few are computed at once, each on its share of the threads: between the kernels of one
/// batch threads wait for each other, and what lies between them runs on one. What `compute` returns must
/// not depend on how many threads it runs on.
pub(crate) fn in_parallel<I: Send, T: Send>(
    device: &Device,
    count: usize,
    items: impl Iterator<Item = Result<I, TrainingError>> + Send,
    compute: impl Fn(I) -> Result<T, TrainingError> + Sync,
    mut take: impl FnMut(T) -> Result<(), TrainingError>,
) -> Result<(), TrainingError> {
    let parts = count.min(AT_ONCE).min(rayon::current_num_threads());
    if parts < 2 || !is_cpu(device) {
        for item in items {
            let item = item?;
            take(among_the_threads(device, || compute(item))?)?;
        }
        return Ok(());
    }
    let pools = pools(parts)?;
    let items = Mutex::new(items.enumerate());
    let (done_to, done_from) = channel();
    std::thread::scope(|scope| {
        for pool in &pools {
            let (items, compute, done_to) = (&items, &compute, done_to.clone());
            scope.spawn(move || {
                loop {
                    let item = items.lock().expect("no iterator panics").next();
                    let Some((index, item)) = item else { break };
                    let done = item.and_then(|item| pool.install(|| compute(item)));
                    if done_to.send((index, done)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done_to);
        let mut early = BTreeMap::new();
        let mut next = 0;
        // Returning drops `done_from`: the threads end with the item at hand.
        for (index, done) in done_from {
            early.insert(index, done);
            while let Some(done) = early.remove(&next) {
                take(done?)?;
                next += 1;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    fn failure() -> TrainingError {
        std::io::Error::other("stop").into()
    }

    fn with_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
        ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
    }

    #[test]
    fn threads_are_divided_without_a_rest() {
        let sizes = |threads, parts| {
            with_threads(threads, || {
                let pools = pools(parts).unwrap();
                pools.iter().map(ThreadPool::current_num_threads).collect::<Vec<_>>()
            })
        };
        assert_eq!(sizes(7, 4), [2, 2, 2, 1]);
        assert_eq!(sizes(2, 4), [1, 1]);
        assert_eq!(sizes(3, 1), [3]);
    }

    #[test]
    fn results_come_in_the_order_of_the_items_each_once() {
        for threads in [1, 2, 3, 16] {
            let mut taken = Vec::new();
            let compute = |item: u64| {
                // Later items are done first.
                std::thread::sleep(Duration::from_millis((20 - item) % 7));
                Ok(item * item)
            };
            with_threads(threads, || {
                let take = |square| {
                    taken.push(square);
                    Ok(())
                };
                in_parallel(&Device::flex(), 20, (0..20).map(Ok), compute, take)
            })
            .unwrap();
            assert_eq!(taken, (0..20).map(|item| item * item).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_ends_it_wherever_it_is() {
        for threads in [1, 3] {
            let computed = AtomicUsize::new(0);
            let run = |bad_item, bad_result, bad_take| {
                let items =
                    (0..1000).map(|item| if item == bad_item { Err(failure()) } else { Ok(item) });
                let compute = |item: i32| {
                    computed.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_micros(200));
                    if item == bad_result { Err(failure()) } else { Ok(item) }
                };
                let take = |item| if item == bad_take { Err(failure()) } else { Ok(()) };
                with_threads(threads, || in_parallel(&Device::flex(), 1000, items, compute, take))
            };
            for (item, result, take) in [(5, -1, -1), (-1, 5, -1), (-1, -1, 5)] {
                computed.store(0, Ordering::Relaxed);
                assert!(run(item, result, take).is_err());
                let computed = computed.load(Ordering::Relaxed);
                assert!(computed < 500, "{computed} items were computed after the error");
            }
        }
    }
}
