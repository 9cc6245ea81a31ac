//! Work split over threads into blocks of a fixed size, so that results do not depend on how many
//! threads there are.

#![expect(unsafe_code, reason = "memory is first written to by all threads")]

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Elements of a block: 64 KiB of `f32`, which fits a core's cache twice over.
pub(crate) const BLOCK: usize = 16 * 1024;

/// Rows of a block whose rows are `width` wide.
pub(crate) fn block_rows(width: usize) -> usize {
    (BLOCK / width.max(1)).max(1)
}

/// So many zeros, written by all threads: an allocator that hands out memory of the process's own has
/// to clear it, on one.
pub(crate) fn zeros(elements: usize) -> Vec<f32> {
    let mut zeros = Vec::with_capacity(elements);
    zeros.spare_capacity_mut()[..elements].par_chunks_mut(BLOCK).for_each(|block| {
        block.fill(MaybeUninit::new(0.0));
    });
    // SAFETY: there is room for them, and each has been written.
    unsafe { zeros.set_len(elements) };
    zeros
}

/// A copy, made by all threads.
pub(crate) fn copied(elements: &[f32]) -> Vec<f32> {
    let mut copy = Vec::with_capacity(elements.len());
    let blocks = copy.spare_capacity_mut()[..elements.len()].par_chunks_mut(BLOCK);
    blocks.zip(elements.par_chunks(BLOCK)).for_each(|(block, elements)| {
        block.write_copy_of_slice(elements);
    });
    // SAFETY: there is room for them, and each has been written.
    unsafe { copy.set_len(elements.len()) };
    copy
}

/// `kernel(first element, elements)` over blocks of `out`.
pub(crate) fn blocks(out: &mut [f32], kernel: impl Fn(usize, &mut [f32]) + Sync) {
    chunks(out, BLOCK, |block, out| kernel(block * BLOCK, out));
}

/// `kernel(index, chunk)` over chunks of so many elements of `out`.
pub(crate) fn chunks(out: &mut [f32], elements: usize, kernel: impl Fn(usize, &mut [f32]) + Sync) {
    out.par_chunks_mut(elements).enumerate().for_each(|(index, out)| kernel(index, out));
}

/// `kernel(first row, rows)` over blocks of whole rows of `out`.
pub(crate) fn row_blocks(out: &mut [f32], width: usize, kernel: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = block_rows(width);
    chunks(out, rows * width, |block, out| kernel(block * rows, out));
}

/// The sum over blocks of rows of what `kernel(first row, row count, sum)` adds to a row of `width`
/// zeros; blocks are added up in their order.
pub(crate) fn sum_rows(
    rows: usize,
    width: usize,
    kernel: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let block = block_rows(width);
    let partial: Vec<Vec<f32>> = (0..rows.div_ceil(block))
        .into_par_iter()
        .map(|index| {
            let mut sum = vec![0.0; width];
            let first = index * block;
            kernel(first, block.min(rows - first), &mut sum);
            sum
        })
        .collect();
    let mut total = vec![0.0; width];
    for sum in partial {
        total.iter_mut().zip(sum).for_each(|(total, value)| *total += value);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::add;
    use crate::matrix::tests::random;

    #[test]
    fn a_sum_over_rows_has_the_same_bits_on_any_number_of_threads() {
        let width = 257;
        let rows = 9 * block_rows(width) + 5;
        // Of very different sizes, so that the order they are added up in shows.
        let sizes = (0..rows).flat_map(|row| [2f32.powi((row % 25) as i32 - 12); 257]);
        let elements: Vec<f32> = random(rows * width, 1)
            .into_iter()
            .zip(sizes)
            .map(|(value, size)| value * size)
            .collect();
        let add_rows = |first: usize, count: usize, sum: &mut [f32]| {
            let rows = elements[first * width..][..count * width].chunks_exact(width);
            rows.for_each(|row| add(sum, row));
        };
        let bits = |sum: Vec<f32>| sum.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let mut in_order = vec![0.0; width];
        for first in (0..rows).step_by(block_rows(width)) {
            let mut sum = vec![0.0; width];
            add_rows(first, block_rows(width).min(rows - first), &mut sum);
            add(&mut in_order, &sum);
        }
        let mut at_once = vec![0.0; width];
        add_rows(0, rows, &mut at_once);
        let expected = bits(in_order);
        assert_ne!(bits(at_once), expected, "no order shows in these numbers");
        for threads in [1, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let sum = pool.install(|| sum_rows(rows, width, add_rows));
            assert!(bits(sum) == expected, "{threads} threads");
        }
    }
}
