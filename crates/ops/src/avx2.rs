//! Sums of matrix products of `f32` on AVX2: one of the `unsafe` modules, for its kernel reads and writes
//! through pointers.
//!
//! `gemm` reads the left factor where it lies, each of six rows from another place, and all of it again
//! for each panel of the right one. Here both factors are rearranged into the order in which they are
//! read, and a strip of the right one stays in a core's second cache while six rows of the left one are
//! in the first.
//!
//! An element of the output is added up as [`crate::chain`] says.
#![expect(unsafe_code, reason = "a kernel takes pointers; every access is checked here first")]

use std::arch::x86_64::{
    __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_mul_ps,
    _mm256_permute2f128_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
    _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::avx512::Ahead;
use crate::chain::{DEPTH, are_chained, chains, fitting};
use crate::matrix::{Start, Target, Term, View, for_each_panel, have_unit_strides};

/// Elements of a vector.
const LANES: usize = 8;
/// Rows and columns of a tile, whose sums are in registers: as many as leave some for a row of the right
/// factor and an element of the left one.
const ROWS: usize = 6;
const COLUMNS: usize = 2 * LANES;
/// Columns of a strip, of which a chain's 512 rows are 128 KiB.
const STRIP: usize = 4 * COLUMNS;
/// Rows of the right factor of which a strip is rearranged at once: those of the longest chain and of a
/// second term of low rank.
const CACHED: usize = DEPTH + 64;
/// Rows, columns and depth of the smallest sum's first term.
const LEAST: usize = 64;

/// The right to use AVX2 and its fused multiplications.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn get() -> Option<Self> {
        let there = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        there.then_some(Self(()))
    }

    /// `output = start + Σ factor · left · right`.
    ///
    /// # Safety
    ///
    /// The output's view lies within elements that can be written and, if the sum starts from them,
    /// read. No two of its elements lie at one place, nothing else reads or writes them meanwhile, the
    /// factors' views fit it and lie within what they are of, and the rows or the columns of each are
    /// elements beside each other.
    #[expect(clippy::unused_self, reason = "it says that there is AVX2")]
    pub(crate) unsafe fn multiply(
        self,
        output: &Target,
        start: Start<'_>,
        terms: &[Term<'_>],
        threads: usize,
    ) {
        // SAFETY: there is AVX2.
        let lefts: Vec<Vec<f32>> =
            terms.iter().map(|term| unsafe { rearranged_left(term.left, threads) }).collect();
        let blocks = terms.iter().zip(&lefts).flat_map(|(term, left)| {
            let rows = term.left.1.rows.next_multiple_of(ROWS);
            chains(term.left.1.columns).map(move |depth| Block {
                left: &left[rows * depth.start..rows * depth.end],
                right: term.right,
                depth,
                factor: term.factor,
            })
        });
        let sum = Sum { output, start, blocks: blocks.collect() };
        for_each_panel(output.view, (ROWS, STRIP), threads, |rows, columns, next| {
            // SAFETY: there is AVX2; the output is as promised, and no other piece has both these rows
            // and these columns.
            unsafe { sum.piece(rows, columns, next) };
        });
    }
}

/// Whether the sum is one for this kernel: there is enough to multiply for what is rearranged.
pub(crate) fn pays(terms: &[Term<'_>]) -> bool {
    let (left, right) = (terms[0].left.1, terms[0].right.1);
    let least = left.rows.min(right.columns).min(left.columns);
    have_unit_strides(terms) && are_chained(terms) && least >= LEAST
}

/// What is summed up in registers: a range of what a term's product is summed over.
struct Block<'a> {
    /// Six rows beside each other, column by column, then the next six.
    left: &'a [f32],
    right: (&'a [f32], View),
    depth: Range<usize>,
    factor: f32,
}

struct Sum<'a> {
    output: &'a Target,
    start: Start<'a>,
    blocks: Vec<Block<'a>>,
}

impl Sum<'_> {
    /// Computes these rows, of which the first is a multiple of six, of a strip of columns, and fetches
    /// the one that a thread is likely to compute next.
    ///
    /// # Safety
    ///
    /// There is AVX2; the output is as [`Avx2::multiply`] wants it, and nothing else reads or writes this
    /// piece of it meanwhile.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn piece(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
        next: Option<&Range<usize>>,
    ) {
        let tiles = columns.len().div_ceil(COLUMNS);
        let depth: usize = self.blocks.iter().map(|block| block.depth.len()).sum();
        let mut memory = Box::new_uninit_slice(depth.min(CACHED) * tiles * COLUMNS);
        let (mut start, mut rest) = (self.start, &self.blocks[..]);
        while !rest.is_empty() {
            let blocks;
            (blocks, rest) = rest.split_at(cached(rest));
            let mut free = &mut memory[..];
            let rights = blocks.iter().map(|block| {
                let depth = block.depth.len();
                let (right, later) =
                    std::mem::take(&mut free).split_at_mut(depth * tiles * COLUMNS);
                free = later;
                for (tile, right) in right.chunks_exact_mut(depth * COLUMNS).enumerate() {
                    let first = columns.start + tile * COLUMNS;
                    rearrange_right(block, first..columns.end.min(first + COLUMNS), right);
                }
                right.as_ptr().cast::<f32>()
            });
            let rights: Vec<*const f32> = rights.collect();
            let (later, columns_later) = match next {
                Some(next) if rest.is_empty() => (&self.blocks[..], next),
                _ => (rest, columns),
            };
            let later = later[..cached(later)].iter();
            let ahead: Vec<Ahead<'_>> =
                later.map(|block| Ahead::new(block.right, &block.depth, columns_later)).collect();
            for row in rows.clone().step_by(ROWS) {
                for ahead in &ahead {
                    ahead.fetch(row - rows.start, rows.len(), ROWS);
                }
                let mut start = start;
                for (block, right) in blocks.iter().zip(&rights) {
                    let depth = block.depth.len();
                    let left = &block.left[row * depth..(row + ROWS) * depth];
                    for tile in 0..tiles {
                        let first = columns.start + tile * COLUMNS;
                        // SAFETY: `rearrange_right` has written this tile's elements; the rest is as
                        // promised.
                        unsafe {
                            let sums = sums(left, right.add(tile * depth * COLUMNS));
                            let rows = row..rows.end.min(row + ROWS);
                            let columns = first..columns.end.min(first + COLUMNS);
                            self.add(&sums, block.factor, start, rows, columns);
                        }
                    }
                    start = Start::Output;
                }
            }
            start = Start::Output;
        }
    }

    /// Adds a tile's sums to the output, or to what it starts from.
    ///
    /// # Safety
    ///
    /// As that of [`Sum::piece`], for this tile.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn add(
        &self,
        sums: &[[__m256; 2]; ROWS],
        factor: f32,
        start: Start<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let factor = _mm256_set1_ps(factor);
        for (row, sums) in rows.zip(sums) {
            let output = self.output.row(row).wrapping_add(columns.start);
            let from = match start {
                Start::Zero => None,
                Start::Output => Some(output.cast_const()),
                Start::Row(row) => Some(row[columns.clone()].as_ptr()),
            };
            // SAFETY: as promised; of fewer columns than a tile's, a line of their own is computed.
            unsafe {
                if columns.len() == COLUMNS {
                    write(sums, factor, from, output);
                    continue;
                }
                let mut line = [0.0; COLUMNS];
                let to = line.as_mut_ptr();
                let from = from.map(|from| {
                    to.copy_from_nonoverlapping(from, columns.len());
                    to.cast_const()
                });
                write(sums, factor, from, to);
                output.copy_from_nonoverlapping(to, columns.len());
            }
        }
    }
}

/// Writes a line of a tile: its sums times the factor, added to what is there `from` on.
///
/// # Safety
///
/// There is AVX2; a tile's columns can be read from `from` on, and written from `to` on.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn write(sums: &[__m256; 2], factor: __m256, from: Option<*const f32>, to: *mut f32) {
    for (vector, &sum) in sums.iter().enumerate() {
        // SAFETY: as promised.
        unsafe {
            let sum = match from {
                None => _mm256_mul_ps(sum, factor),
                Some(from) => {
                    _mm256_fmadd_ps(sum, factor, _mm256_loadu_ps(from.add(vector * LANES)))
                }
            };
            _mm256_storeu_ps(to.add(vector * LANES), sum);
        }
    }
}

/// The sums of a tile over a block.
///
/// # Safety
///
/// There is AVX2; from `right` on, a tile's columns have been written for each six elements of `left`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn sums(left: &[f32], right: *const f32) -> [[__m256; 2]; ROWS] {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    let mut right = right;
    for left in left.as_chunks::<ROWS>().0 {
        // SAFETY: as promised.
        let line = unsafe { [_mm256_loadu_ps(right), _mm256_loadu_ps(right.add(LANES))] };
        for (sums, left) in sums.iter_mut().zip(left) {
            let left = _mm256_broadcast_ss(left);
            sums[0] = _mm256_fmadd_ps(left, line[0], sums[0]);
            sums[1] = _mm256_fmadd_ps(left, line[1], sums[1]);
        }
        right = right.wrapping_add(COLUMNS);
    }
    sums
}

/// How many of these blocks' strips are rearranged before they are multiplied.
fn cached(blocks: &[Block<'_>]) -> usize {
    fitting(blocks.iter().map(|block| block.depth.len()), CACHED)
}

/// A left factor, chain by chain: six rows beside each other, column by column, then the next six, with
/// zeros behind the last row.
///
/// # Safety
///
/// There is AVX2.
unsafe fn rearranged_left((elements, view): (&[f32], View), threads: usize) -> Vec<f32> {
    let rows = view.rows.next_multiple_of(ROWS);
    let mut all = Vec::with_capacity(rows * view.columns);
    let mut free = all.spare_capacity_mut();
    let mut parts = Vec::new();
    for depth in chains(view.columns) {
        let (chain, later) = std::mem::take(&mut free).split_at_mut(rows * depth.len());
        free = later;
        let six = chain.chunks_exact_mut(ROWS * depth.len()).enumerate();
        parts.extend(six.map(|(index, six)| (index * ROWS, depth.clone(), six)));
    }
    let rearrange = |(row, depth, to): (usize, Range<usize>, &mut [MaybeUninit<f32>])| {
        let count = ROWS.min(view.rows - row);
        let first = view.offset + row * view.row + depth.start * view.column;
        // SAFETY: there is AVX2.
        unsafe {
            if view.column == 1 {
                lines_to_columns::<ROWS>(&elements[first..], view.row, count, to);
            } else {
                copy_lines::<ROWS>(&elements[first..], view.column, count, to);
            }
        }
    };
    match threads {
        1 => parts.into_iter().for_each(rearrange),
        _ => parts.into_par_iter().with_min_len(8).for_each(rearrange),
    }
    // SAFETY: there is room for them, and each has been written.
    unsafe { all.set_len(rows * view.columns) };
    all
}

/// Writes these columns of a block's right factor, row by row, with zeros behind the last column.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn rearrange_right(block: &Block<'_>, columns: Range<usize>, to: &mut [MaybeUninit<f32>]) {
    let (elements, view) = block.right;
    let first = view.offset + block.depth.start * view.row + columns.start * view.column;
    if view.column == 1 {
        copy_lines::<COLUMNS>(&elements[first..], view.row, columns.len(), to);
    } else {
        lines_to_columns::<COLUMNS>(&elements[first..], view.column, columns.len(), to);
    }
}

/// Copies lines of `count` elements, `step` apart, with zeros behind them until there are `WIDTH`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn copy_lines<const WIDTH: usize>(
    elements: &[f32],
    step: usize,
    count: usize,
    to: &mut [MaybeUninit<f32>],
) {
    for (index, to) in to.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
        let line = &elements[index * step..][..count];
        if let Ok(line) = <&[f32; WIDTH]>::try_from(line) {
            *to = line.map(MaybeUninit::new);
        } else {
            let (there, behind) = to.split_at_mut(count);
            there.write_copy_of_slice(line);
            behind.fill(MaybeUninit::new(0.0));
        }
    }
}

/// Writes the columns of `count` lines, `step` apart, one after the other, with zeros behind each until
/// there are `WIDTH`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn lines_to_columns<const WIDTH: usize>(
    elements: &[f32],
    step: usize,
    count: usize,
    to: &mut [MaybeUninit<f32>],
) {
    let to = to.as_chunks_mut::<WIDTH>().0;
    let length = to.len();
    let whole = length / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        for group in (0..WIDTH).step_by(LANES) {
            let mut square = [_mm256_setzero_ps(); LANES];
            for (line, row) in (group..count.min(group + LANES)).zip(&mut square) {
                let line = &elements[line * step + first..][..LANES];
                // SAFETY: there are so many.
                *row = unsafe { _mm256_loadu_ps(line.as_ptr()) };
            }
            for (row, to) in transpose(square).into_iter().zip(&mut to[first..first + LANES]) {
                let mut column = [MaybeUninit::uninit(); LANES];
                // SAFETY: it has so many.
                unsafe { _mm256_storeu_ps(column.as_mut_ptr().cast(), row) };
                let to = &mut to[group..WIDTH.min(group + LANES)];
                to.copy_from_slice(&column[..to.len()]);
            }
        }
    }
    for (column, to) in to.iter_mut().enumerate().skip(whole) {
        for (line, to) in to.iter_mut().enumerate() {
            let element = if line < count { elements[line * step + column] } else { 0.0 };
            to.write(element);
        }
    }
}

/// Makes the columns of 8 rows their rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn transpose(rows: [__m256; LANES]) -> [__m256; LANES] {
    let [a, b, c, d, e, f, g, h] = rows;
    let pairs = [
        _mm256_unpacklo_ps(a, b),
        _mm256_unpackhi_ps(a, b),
        _mm256_unpacklo_ps(c, d),
        _mm256_unpackhi_ps(c, d),
        _mm256_unpacklo_ps(e, f),
        _mm256_unpackhi_ps(e, f),
        _mm256_unpacklo_ps(g, h),
        _mm256_unpackhi_ps(g, h),
    ];
    let four = |left: usize| {
        let right = left + 2;
        [
            _mm256_shuffle_ps::<0x44>(pairs[left], pairs[right]),
            _mm256_shuffle_ps::<0xee>(pairs[left], pairs[right]),
            _mm256_shuffle_ps::<0x44>(pairs[left + 1], pairs[right + 1]),
            _mm256_shuffle_ps::<0xee>(pairs[left + 1], pairs[right + 1]),
        ]
    };
    let (upper, lower) = (four(0), four(4));
    let mut columns = [_mm256_setzero_ps(); LANES];
    for (index, (&upper, &lower)) in upper.iter().zip(&lower).enumerate() {
        columns[index] = _mm256_permute2f128_ps::<0x20>(upper, lower);
        columns[index + 4] = _mm256_permute2f128_ps::<0x31>(upper, lower);
    }
    columns
}
