//! Sums of matrix products of `f32` on AVX-512: one of the `unsafe` modules, for its kernel reads and
//! writes through pointers.
//!
//! [`gemm`] multiplies at the processor's peak, too. But it goes through the output once for each
//! term of a sum, and again for every few hundred elements that are summed over; it rearranges a
//! transposed right factor element by element; and a product with a factor of low rank, which is 16 wide
//! or deep, it computes at half that rate. Here the terms are added up while a tile of the output is in
//! a core's first cache, factors are transposed 16 by 16 in registers, and there is a kernel for narrow
//! outputs.
//!
//! An element of the output is added up as [`crate::chain`] says.
#![expect(unsafe_code, reason = "a kernel takes pointers; every access is checked here first")]

use std::arch::x86_64::{
    __m512, __mmask16, _MM_HINT_T1, _mm_prefetch, _mm512_castpd_ps, _mm512_castps_pd,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_storeu_ps, _mm512_unpackhi_pd,
    _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::chain::{DEPTH, are_chained, chains, fitting};
use crate::matrix::{Start, Target, Term, View, for_each_panel, have_unit_strides};

/// Elements of a vector.
const LANES: usize = 16;
/// Columns that are computed at once, at most.
const PANEL: usize = 4 * LANES;
/// Rows of the right factor of which a panel, 272 KiB, stays in a core's second cache: those of
/// two chains and of a second term of low rank.
const CACHED: usize = 2 * DEPTH + 64;
/// Rows of a piece are a multiple of this, but for the last piece's: of most tiles' heights.
const TILES_ROWS: usize = 12;
/// Products of a chain that are added before the addresses are counted on. Instructions that are no
/// multiplications count where two threads share a core, and with it what it can issue.
const STEPS: usize = 4;
/// Up to so many rows of the left factor, the right one is read where it lies.
const FEW_ROWS: usize = 16;

/// The right to use AVX-512.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn get() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }

    /// `output = start + Σ factor · left · right`.
    ///
    /// # Safety
    ///
    /// The output's view lies within elements that can be written and, if the sum starts from them,
    /// read. No two of its elements lie at one place, nothing else reads or writes them meanwhile, the
    /// factors' views fit it and lie within what they are of, and the rows or the columns of each are
    /// elements beside each other.
    #[expect(clippy::unused_self, reason = "it says that there is AVX-512")]
    pub(crate) unsafe fn multiply(
        self,
        output: &Target,
        start: Start<'_>,
        terms: &[Term<'_>],
        threads: usize,
    ) {
        let transposed: Vec<Option<Vec<f32>>> = terms
            .iter()
            // SAFETY: there is AVX-512, and elements of a view's columns lie beside each other or its
            // rows' do.
            .map(|&Term { left, .. }| {
                (left.1.column != 1).then(|| unsafe { by_rows(left, threads) })
            })
            .collect();
        let blocks = terms
            .iter()
            .zip(&transposed)
            .flat_map(|(&Term { left: (elements, view), right, factor }, transposed)| {
                let (left, row) = match transposed {
                    Some(copy) => (copy.as_slice(), view.columns),
                    None => (&elements[view.offset..], view.row),
                };
                chains(view.columns).map(move |depth| Block {
                    left: &left[depth.start..],
                    left_row: row,
                    right,
                    depth,
                    factor,
                })
            })
            .collect();
        let sum = Sum { output, start, blocks };
        for_each_panel(output.view, (TILES_ROWS, PANEL), threads, |rows, columns, next| {
            // SAFETY: there is AVX-512; the output is as promised, and no other piece has both these rows
            // and these columns.
            unsafe { sum.piece(rows, columns, next) };
        });
    }
}

/// Whether the sum is one for this kernel.
pub(crate) fn pays(terms: &[Term<'_>]) -> bool {
    have_unit_strides(terms) && are_chained(terms)
}

/// What is summed up in registers: a range of what a term's product is summed over.
struct Block<'a> {
    /// From the first row's first element on.
    left: &'a [f32],
    left_row: usize,
    right: (&'a [f32], View),
    depth: Range<usize>,
    factor: f32,
}

struct Sum<'a> {
    output: &'a Target,
    start: Start<'a>,
    blocks: Vec<Block<'a>>,
}

/// A panel of a block's right factor: each row's vectors beside each other, `row` elements apart.
#[derive(Clone, Copy)]
struct Panel {
    elements: *const f32,
    row: usize,
}

impl Sum<'_> {
    /// Computes these rows of a panel of columns, and fetches the one that a thread is likely to compute
    /// next.
    ///
    /// # Safety
    ///
    /// There is AVX-512; the output is as [`Avx512::multiply`] wants it, and nothing else reads or writes
    /// this piece of it meanwhile.
    unsafe fn piece(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
        next: Option<&Range<usize>>,
    ) {
        // As many rows as leave registers for a row of the panel and an element of the left factor.
        // SAFETY: as promised to this function.
        unsafe {
            match columns.len().div_ceil(LANES) {
                4 => self.panel::<6, 4>(rows, columns, next),
                3 => self.panel::<8, 3>(rows, columns, next),
                2 => self.panel::<12, 2>(rows, columns, next),
                _ => self.panel::<16, 1>(rows, columns, next),
            }
        }
    }

    /// Computes `VECTORS` vectors of a piece's rows, up to `ROWS` rows at once.
    ///
    /// # Safety
    ///
    /// As that of [`Sum::piece`].
    #[target_feature(enable = "avx512f")]
    unsafe fn panel<const ROWS: usize, const VECTORS: usize>(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
        next: Option<&Range<usize>>,
    ) {
        let depth: usize = self.blocks.iter().map(|block| block.depth.len()).sum();
        let mut memory = Box::new_uninit_slice(depth.min(CACHED) * VECTORS * LANES);
        let (mut start, mut rest) = (self.start, &self.blocks[..]);
        while !rest.is_empty() {
            let blocks;
            (blocks, rest) = rest.split_at(cached(rest));
            let panels = panels(blocks, rows.len(), columns, &mut memory);
            let (later, columns_later) = match next {
                Some(next) if rest.is_empty() => (&self.blocks[..], next),
                _ => (rest, columns),
            };
            let later = later[..cached(later)].iter();
            let ahead: Vec<_> =
                later.map(|block| Ahead::new(block.right, &block.depth, columns_later)).collect();
            let mut row = rows.start;
            while row < rows.end {
                for ahead in &ahead {
                    ahead.fetch(row - rows.start, rows.len(), ROWS);
                }
                let most = ROWS.min(rows.end - row);
                let height = [ROWS, 8, 4, 2].into_iter().find(|&height| height <= most);
                let mut start = start;
                for (block, &panel) in blocks.iter().zip(&panels) {
                    // SAFETY: the left factor has these rows, the panel the block's; and as promised to
                    // this function.
                    unsafe {
                        match height {
                            Some(8) => self.tile::<8, VECTORS>(block, panel, start, row, columns),
                            Some(4) => self.tile::<4, VECTORS>(block, panel, start, row, columns),
                            Some(2) => self.tile::<2, VECTORS>(block, panel, start, row, columns),
                            None => self.tile::<1, VECTORS>(block, panel, start, row, columns),
                            _ => self.tile::<ROWS, VECTORS>(block, panel, start, row, columns),
                        }
                    }
                    start = Start::Output;
                }
                row += height.unwrap_or(1);
            }
            start = Start::Output;
        }
    }

    /// Adds a block's sums to a tile of the output, or to what it starts from.
    ///
    /// # Safety
    ///
    /// As that of [`Sum::piece`], for this tile; the block's left factor has its rows, and the panel as
    /// many rows as the block is deep.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn tile<const ROWS: usize, const VECTORS: usize>(
        &self,
        block: &Block<'_>,
        panel: Panel,
        start: Start<'_>,
        row: usize,
        columns: &Range<usize>,
    ) {
        let left = &block.left[row * block.left_row..];
        let depth = block.depth.len();
        assert!(left.len() >= (ROWS - 1) * block.left_row + depth);
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        let mut lefts: [*const f32; ROWS] =
            std::array::from_fn(|row| left[row * block.left_row..].as_ptr());
        let mut right = panel.elements;
        for _ in 0..depth / STEPS {
            // SAFETY: so many elements were asserted; the panel has so many rows.
            unsafe { add::<STEPS, ROWS, VECTORS>(&mut sums, &lefts, right, panel.row) };
            lefts = lefts.map(|left| left.wrapping_add(STEPS));
            right = right.wrapping_add(STEPS * panel.row);
        }
        for _ in 0..depth % STEPS {
            // SAFETY: as above.
            unsafe { add::<1, ROWS, VECTORS>(&mut sums, &lefts, right, panel.row) };
            lefts = lefts.map(|left| left.wrapping_add(1));
            right = right.wrapping_add(panel.row);
        }
        let factor = _mm512_set1_ps(block.factor);
        for (index, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                let column = columns.start + vector * LANES;
                let mask = mask(columns.end - column);
                let output = self.output.row(row + index).wrapping_add(column);
                // SAFETY: the masks end where the view does.
                unsafe {
                    let added = |to| _mm512_fmadd_ps(sum, factor, to);
                    let sum = match start {
                        Start::Zero => _mm512_mul_ps(sum, factor),
                        Start::Output => added(_mm512_maskz_loadu_ps(mask, output)),
                        Start::Row(row) => added(load(&row[column..columns.end])),
                    };
                    _mm512_mask_storeu_ps(output, mask, sum);
                }
            }
        }
    }
}

/// Adds `N` of a chain's products to a tile's sums, from these elements of the left factor's rows and this
/// row of a panel on.
///
/// # Safety
///
/// There is AVX-512; so many elements follow in each row of the left factor, and so many rows of the panel,
/// which lie `row` elements apart.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add<const N: usize, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[__m512; VECTORS]; ROWS],
    lefts: &[*const f32; ROWS],
    right: *const f32,
    row: usize,
) {
    for k in 0..N {
        let mut vectors = [_mm512_setzero_ps(); VECTORS];
        for (index, vector) in vectors.iter_mut().enumerate() {
            // SAFETY: the panel has this row, and these vectors in it.
            *vector = unsafe { _mm512_loadu_ps(right.add(k * row + index * LANES)) };
        }
        for (sums, left) in sums.iter_mut().zip(lefts) {
            // SAFETY: the row has this element.
            let left = _mm512_set1_ps(unsafe { *left.add(k) });
            for (sum, right) in sums.iter_mut().zip(vectors) {
                *sum = _mm512_fmadd_ps(left, right, *sum);
            }
        }
    }
}

/// Elements of a panel that comes next, which are brought nearer while another one is multiplied: on AVX2,
/// too, for a line of the caches has as many elements as a vector of AVX-512.
pub(crate) struct Ahead<'a> {
    elements: &'a [f32],
    /// So many times so many elements beside each other, each `step` elements behind the one before.
    times: usize,
    length: usize,
    step: usize,
}

impl<'a> Ahead<'a> {
    /// Of these rows and columns of a right factor.
    pub(crate) fn new(
        (elements, view): (&'a [f32], View),
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> Self {
        let first = view.offset + rows.start * view.row + columns.start * view.column;
        let elements = &elements[first..];
        let (depth, width) = (rows.len(), columns.len());
        match view.column {
            1 => Self { elements, times: depth, length: width, step: view.row },
            step => Self { elements, times: width, length: depth, step },
        }
    }

    /// Fetches the part that is due after `done` of `all` rows, until `more` are.
    pub(crate) fn fetch(&self, done: usize, all: usize, more: usize) {
        let lines = self.length.div_ceil(LANES);
        let share = |rows: usize| self.times * lines * rows.min(all) / all;
        for line in share(done)..share(done + more) {
            let at = line / lines * self.step + line % lines * LANES;
            let address = self.elements.as_ptr().wrapping_add(at);
            // SAFETY: a prefetch reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
        }
    }
}

/// The blocks' panels: of few rows' products where they lie, else rearranged.
#[target_feature(enable = "avx512f")]
fn panels(
    blocks: &[Block<'_>],
    rows: usize,
    columns: &Range<usize>,
    memory: &mut [MaybeUninit<f32>],
) -> Vec<Panel> {
    let width = columns.len().next_multiple_of(LANES);
    let in_place = rows <= FEW_ROWS && columns.len() == width;
    let mut free = memory;
    let panel = |block: &Block<'_>| {
        let (elements, view) = block.right;
        if in_place && view.column == 1 {
            let first = view.offset + block.depth.start * view.row + columns.start;
            return Panel { elements: elements[first..].as_ptr(), row: view.row };
        }
        let (panel, rest) = std::mem::take(&mut free).split_at_mut(block.depth.len() * width);
        free = rest;
        rearrange(block, columns, panel);
        Panel { elements: panel.as_ptr().cast(), row: width }
    };
    blocks.iter().map(panel).collect()
}

/// How many of these blocks' panels are rearranged before they are multiplied.
fn cached(blocks: &[Block<'_>]) -> usize {
    fitting(blocks.iter().map(|block| block.depth.len()), CACHED)
}

/// Writes these columns of a block's right factor, each row's vectors beside each other, with zeros
/// behind the last column.
#[target_feature(enable = "avx512f")]
fn rearrange(block: &Block<'_>, columns: &Range<usize>, panel: &mut [MaybeUninit<f32>]) {
    let (elements, view) = block.right;
    let width = columns.len().next_multiple_of(LANES);
    let first = view.offset + block.depth.start * view.row + columns.start * view.column;
    if view.column == 1 {
        for (k, row) in panel.chunks_exact_mut(width).enumerate() {
            let first = first + k * view.row;
            let elements = &elements[first..first + columns.len()];
            for (vector, row) in row.chunks_exact_mut(LANES).enumerate() {
                store(load(&elements[vector * LANES..]), row);
            }
        }
        return;
    }
    for vector in (0..width).step_by(LANES) {
        let count = (columns.len() - vector).min(LANES);
        for (k, rows) in panel.chunks_mut(LANES * width).enumerate() {
            let depth = rows.len() / width;
            let first = first + vector * view.column + k * LANES;
            let mut lines = [_mm512_setzero_ps(); LANES];
            for (index, line) in lines.iter_mut().enumerate().take(count) {
                let first = first + index * view.column;
                *line = load(&elements[first..first + depth]);
            }
            transpose(&mut lines);
            for (line, row) in lines.into_iter().zip(rows.chunks_exact_mut(width)) {
                store(line, &mut row[vector..]);
            }
        }
    }
}

/// A copy of a matrix whose columns' elements lie beside each other, row by row.
///
/// # Safety
///
/// There is AVX-512.
unsafe fn by_rows((elements, view): (&[f32], View), threads: usize) -> Vec<f32> {
    let View { offset, rows, columns, column, .. } = view;
    let mut copy = Vec::with_capacity(rows * columns);
    let lines = |(index, lines): (usize, &mut [MaybeUninit<f32>])| {
        // SAFETY: there is AVX-512.
        unsafe { transpose_lines(&elements[offset + index * LANES..], column, columns, lines) };
    };
    let free = &mut copy.spare_capacity_mut()[..rows * columns];
    match threads {
        1 => free.chunks_mut(LANES * columns).enumerate().for_each(lines),
        _ => free.par_chunks_mut(LANES * columns).enumerate().for_each(lines),
    }
    // SAFETY: there is room for them, and each has been written.
    unsafe { copy.set_len(rows * columns) };
    copy
}

/// Writes up to 16 rows of a matrix whose columns lie `column` elements apart.
#[target_feature(enable = "avx512f")]
fn transpose_lines(
    elements: &[f32],
    column: usize,
    columns: usize,
    lines: &mut [MaybeUninit<f32>],
) {
    let rows = lines.len() / columns;
    for first in (0..columns).step_by(LANES) {
        let count = (columns - first).min(LANES);
        let mut vectors = [_mm512_setzero_ps(); LANES];
        for (index, vector) in vectors.iter_mut().enumerate().take(count) {
            let at = (first + index) * column;
            *vector = load(&elements[at..at + rows]);
        }
        transpose(&mut vectors);
        for (vector, line) in vectors.into_iter().zip(lines.chunks_exact_mut(columns)) {
            store(vector, &mut line[first..]);
        }
    }
}

/// At most 16 elements, and zeros behind them.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load(elements: &[f32]) -> __m512 {
    // SAFETY: the mask lets no more be read than there are.
    unsafe { _mm512_maskz_loadu_ps(mask(elements.len()), elements.as_ptr()) }
}

/// Sets as many elements as there are, at most 16.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(vector: __m512, elements: &mut [MaybeUninit<f32>]) {
    // SAFETY: there are 16, or the mask lets no more be written than there are.
    unsafe {
        match elements.len() {
            LANES.. => _mm512_storeu_ps(elements.as_mut_ptr().cast(), vector),
            length => _mm512_mask_storeu_ps(elements.as_mut_ptr().cast(), mask(length), vector),
        }
    }
}

/// The first `length` of 16.
pub(crate) fn mask(length: usize) -> __mmask16 {
    ((1_u32 << length.min(LANES)) - 1) as __mmask16
}

/// Makes the columns of 16 rows their rows.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose(rows: &mut [__m512; LANES]) {
    let zero = _mm512_setzero_ps();
    let mut pairs = [zero; LANES];
    for at in (0..LANES).step_by(2) {
        pairs[at] = _mm512_unpacklo_ps(rows[at], rows[at + 1]);
        pairs[at + 1] = _mm512_unpackhi_ps(rows[at], rows[at + 1]);
    }
    let mut fours = [zero; LANES];
    for at in (0..LANES).step_by(4) {
        for odd in 0..2 {
            let left = _mm512_castps_pd(pairs[at + odd]);
            let right = _mm512_castps_pd(pairs[at + odd + 2]);
            fours[at + 2 * odd] = _mm512_castpd_ps(_mm512_unpacklo_pd(left, right));
            fours[at + 2 * odd + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(left, right));
        }
    }
    let mut eights = [zero; LANES];
    for at in [0, 1, 2, 3, 8, 9, 10, 11] {
        eights[at] = _mm512_shuffle_f32x4::<0x88>(fours[at], fours[at + 4]);
        eights[at + 4] = _mm512_shuffle_f32x4::<0xdd>(fours[at], fours[at + 4]);
    }
    for at in 0..8 {
        rows[at] = _mm512_shuffle_f32x4::<0x88>(eights[at], eights[at + 8]);
        rows[at + 8] = _mm512_shuffle_f32x4::<0xdd>(eights[at], eights[at + 8]);
    }
}
