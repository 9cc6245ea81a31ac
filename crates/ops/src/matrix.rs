//! Sums of matrix products of views into slices: on AMX, AVX-512 or AVX2 where a processor has them and a sum
//! is large enough, else by [`gemm::gemm`], the code behind burn's own. One of the `unsafe` modules.
#![expect(unsafe_code, reason = "`gemm` takes pointers; every access is checked here first")]

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

/// Whether matrix products of the kernels for `flex` use AMX, the matrix unit of Intel's server
/// processors, where there is one: they do, unless this says otherwise. Either way they are products in
/// float32, with other last bits.
pub fn set_amx(used: bool) {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    crate::amx::set_used(used);
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    let _ = used;
}

/// Whether they do.
pub fn has_amx() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    let used = crate::amx::Amx::get().is_some();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    let used = false;
    used
}

/// A matrix within a slice: element `(i, j)` lies at `offset + i · row + j · column`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) offset: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl View {
    /// Rows of `columns` elements, `row` apart.
    pub(crate) fn new(offset: usize, rows: usize, columns: usize, row: usize) -> Self {
        Self { offset, rows, columns, row, column: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row: self.column, column: self.row, ..self }
    }

    /// One past the last element's place.
    fn end(self) -> usize {
        let last = |count: usize, stride: usize| (count - 1).checked_mul(stride);
        last(self.rows, self.row)
            .zip(last(self.columns, self.column))
            .and_then(|(row, column)| {
                row.checked_add(column)?.checked_add(self.offset)?.checked_add(1)
            })
            .expect("a view lies within memory")
    }
}

/// What a sum of products starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    /// Nothing: what is in the output is not read.
    Zero,
    /// What is in the output.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "`gemm` is told so in another way")
    )]
    Output,
    /// This row, in each row.
    Row(&'a [f32]),
}

/// `factor · left · right`, a part of a sum.
#[derive(Clone, Copy)]
pub(crate) struct Term<'a> {
    pub(crate) left: (&'a [f32], View),
    pub(crate) right: (&'a [f32], View),
    pub(crate) factor: f32,
}

/// Rows and columns that `gemm` computes at once, at most, and a piece's are a multiple of.
const TILE_ROWS: usize = 6;
const TILE_COLUMNS: usize = 64;
/// Rows or columns of the smallest piece of an output, before they are rounded down to whole tiles: what
/// has no more than 64 of both is added up in another order.
const SMALLEST: usize = 64 + TILE_COLUMNS;
/// So is an output of no more elements, of some orders of the factors.
const FEW_ELEMENTS: usize = 256;
/// Products of fewer multiplications stay on one thread, as burn's do.
const PARALLEL: usize = 192 * 192 * 192;

/// `output = factor · left · right`, on one thread.
///
/// # Panics
///
/// If the shapes do not fit each other, a dimension is 0, or a view leaves its slice.
pub(crate) fn multiply(
    (elements, view): (&mut [f32], View),
    left: (&[f32], View),
    right: (&[f32], View),
    factor: f32,
) {
    let output = Target::new(elements, view);
    let terms = [Term { left, right, factor }];
    // SAFETY: the slice's elements are all there, and borrowed.
    unsafe { sum(Unit::of(&terms), &output, Start::Zero, &terms, 1) }
}

/// The sum of these terms, row by row, on all threads where the first is large; with `row` added to
/// each of its rows, if there is one.
///
/// # Panics
///
/// As [`multiply`], if there is no term, and if `row` is not as wide as the sum.
pub(crate) fn sum_parallel(terms: &[Term<'_>], row: Option<&[f32]>) -> Vec<f32> {
    sum_on(Unit::of(terms), terms, row)
}

fn sum_on(unit: Unit, terms: &[Term<'_>], row: Option<&[f32]>) -> Vec<f32> {
    let (rows, columns) = (terms[0].left.1.rows, terms[0].right.1.columns);
    let length = rows.checked_mul(columns).expect("an output fits into memory");
    let mut output = Vec::with_capacity(length);
    let view = View::new(0, rows, columns, columns);
    let target = Target { start: output.as_mut_ptr(), length, view };
    let start = row.map_or(Start::Zero, Start::Row);
    // SAFETY: there is room for them all, and a sum that does not start from the output sets each
    // element of its view, which here are all.
    unsafe {
        sum(unit, &target, start, terms, threads(terms[0]));
        output.set_len(length);
    }
    output
}

fn threads(term: Term<'_>) -> usize {
    let size = term.left.1.rows * term.left.1.columns * term.right.1.columns;
    if size < PARALLEL { 1 } else { rayon::current_num_threads() }
}

/// Where a product goes.
pub(crate) struct Target {
    start: *mut f32,
    length: usize,
    pub(crate) view: View,
}

impl Target {
    pub(crate) fn new(elements: &mut [f32], view: View) -> Self {
        Self { start: elements.as_mut_ptr(), length: elements.len(), view }
    }

    /// The first element of a row.
    pub(crate) fn row(&self, row: usize) -> *mut f32 {
        self.start.wrapping_add(self.view.offset + row * self.view.row)
    }
}

// SAFETY: whoever makes one is the only one to use the elements until the product is done, and what
// computes it on several threads gives each elements of its own.
unsafe impl Sync for Target {}

/// # Safety
///
/// So many elements can be written, and are read if the sum starts from them; nothing else reads or
/// writes them meanwhile.
unsafe fn sum(unit: Unit, output: &Target, start: Start<'_>, terms: &[Term<'_>], threads: usize) {
    let out = output.view;
    for Term { left: (left, l), right: (right, r), .. } in terms {
        assert!(out.rows == l.rows && out.columns == r.columns && l.columns == r.rows);
        assert!(out.rows > 0 && out.columns > 0 && l.columns > 0);
        assert!(l.end() <= left.len() && r.end() <= right.len());
    }
    // Two elements of the output at one place would be written twice.
    assert!(out.column == 1 && out.row >= out.columns && out.end() <= output.length);
    if let Start::Row(row) = start {
        assert_eq!(row.len(), out.columns);
    }
    // SAFETY: the output is as promised, and all views lie within what they are of.
    unsafe {
        match unit {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Unit::Amx(amx) => {
                assert!(crate::amx::pays(terms));
                amx.multiply(output, start, terms, threads);
            }
            #[cfg(target_arch = "x86_64")]
            Unit::Avx512(avx512) => {
                assert!(have_unit_strides(terms));
                avx512.multiply(output, start, terms, threads);
            }
            #[cfg(target_arch = "x86_64")]
            Unit::Avx2(avx2) => {
                assert!(have_unit_strides(terms));
                avx2.multiply(output, start, terms, threads);
            }
            Unit::Any => sum_by_gemm(output, start, terms, threads),
        }
    }
}

/// Whether the rows or the columns of each factor are elements beside each other.
#[cfg(target_arch = "x86_64")]
pub(crate) fn have_unit_strides(terms: &[Term<'_>]) -> bool {
    let unit_stride = |view: View| view.row == 1 || view.column == 1;
    terms.iter().all(|Term { left, right, .. }| unit_stride(left.1) && unit_stride(right.1))
}

/// What computes a sum of products.
#[derive(Clone, Copy, Debug)]
enum Unit {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(crate::amx::Amx),
    #[cfg(target_arch = "x86_64")]
    Avx512(crate::avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(crate::avx2::Avx2),
    /// `gemm`, on any processor.
    Any,
}

impl Unit {
    /// The fastest one for these terms.
    fn of(terms: &[Term<'_>]) -> Self {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if let Some(amx) = crate::amx::Amx::get()
            && crate::amx::pays(terms)
        {
            return Self::Amx(amx);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = crate::avx512::Avx512::get()
            && crate::avx512::pays(terms)
        {
            return Self::Avx512(avx512);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = crate::avx2::Avx2::get()
            && crate::avx2::pays(terms)
        {
            return Self::Avx2(avx2);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = terms;
        Self::Any
    }
}

/// The sum by [`gemm::gemm`].
///
/// # Safety
///
/// As that of [`sum`]; the factors' views fit the output, and all lie within what they are of.
unsafe fn sum_by_gemm(output: &Target, start: Start<'_>, terms: &[Term<'_>], threads: usize) {
    let out = output.view;
    let strips = strips([out.rows, out.columns], terms[0].left.1.column != 1, threads);
    let down = row_parts(out.rows, strips, threads, smallest_rows(out.columns));
    for_each(down * strips, threads, |piece| {
        let rows = share(out.rows, piece / strips, down, TILE_ROWS);
        let columns = share(out.columns, piece % strips, strips, TILE_COLUMNS);
        // SAFETY: the views lie within what they are of, and what is computed here, of which no other
        // piece has both these rows and these columns, within the views.
        unsafe { sum_piece(output, start, terms, rows, columns) };
    });
}

/// Strips of columns that are computed on their own: while one is in a core's cache, each term is added
/// to it.
///
/// `gemm` could share out a product itself, but rearranges some right factors on one thread, and goes
/// through the whole output once for each term. A piece is never so small that `gemm` would add up in
/// another order: there are the same bits on any number of threads.
fn strips([rows, columns]: [usize; 2], left_is_rearranged: bool, threads: usize) -> usize {
    // Each strip would rearrange the left factor again.
    let whole = left_is_rearranged && rows / SMALLEST >= threads;
    if whole { 1 } else { (columns / SMALLEST).max(1) }
}

/// Rows of the smallest piece of an output with so many columns, before they are rounded down to whole
/// tiles.
fn smallest_rows(columns: usize) -> usize {
    SMALLEST.max(FEW_ELEMENTS / columns + 2 * TILE_ROWS)
}

/// Parts of the rows that are computed on their own where there are few strips of columns: a few pieces
/// for each thread, so that none waits long for one that is slower, or that the system does not let run.
fn row_parts(rows: usize, strips: usize, threads: usize, smallest: usize) -> usize {
    const PIECES: usize = 3;
    match threads {
        1 => 1,
        _ => (PIECES * threads).div_ceil(strips).min(rows / smallest).max(1),
    }
}

/// Computes these pieces, each thread taking the next one when it has done one.
fn for_each(pieces: usize, threads: usize, compute: impl Fn(usize) + Send + Sync) {
    match threads {
        1 => (0..pieces).for_each(compute),
        _ => (0..pieces).into_par_iter().with_max_len(1).for_each(compute),
    }
}

/// Computes an output by panels of `width` columns and, where there are few of them, parts of the rows that
/// end with a multiple of `tile`. `compute` is given rows, columns, and those of the panel that the same
/// thread is likely to compute next.
#[cfg(target_arch = "x86_64")]
pub(crate) fn for_each_panel(
    View { rows, columns, .. }: View,
    (tile, width): (usize, usize),
    threads: usize,
    compute: impl Fn(&Range<usize>, &Range<usize>, Option<&Range<usize>>) + Send + Sync,
) {
    /// Rows of the smallest part: each rearranges its panel of the right factor, which takes as long as
    /// multiplying a dozen rows.
    const SMALLEST: usize = 96;
    let panels = columns.div_ceil(width);
    let down = row_parts(rows, panels, threads, SMALLEST);
    let panel = |index: usize| index * width..columns.min((index + 1) * width);
    for_each(down * panels, threads, |piece| {
        let index = piece % panels;
        let next = (index + 1 < panels).then(|| panel(index + 1));
        compute(&share(rows, piece / panels, down, tile), &panel(index), next.as_ref());
    });
}

/// The part of `count` things that is one of `parts`' in turn; all but the last end with a multiple of
/// `tile`.
pub(crate) fn share(count: usize, part: usize, parts: usize, tile: usize) -> Range<usize> {
    let end = |part| if part == parts { count } else { count * part / parts / tile * tile };
    end(part)..end(part + 1)
}

/// Computes a piece of the output.
///
/// # Safety
///
/// As that of [`sum`], for this piece; the views lie within what they are of, fit each other, and hold
/// these rows and columns.
unsafe fn sum_piece(
    output: &Target,
    start: Start<'_>,
    terms: &[Term<'_>],
    rows: Range<usize>,
    columns: Range<usize>,
) {
    let out = output.view;
    if let Start::Row(row) = start {
        let row = &row[columns.clone()];
        for index in rows.clone() {
            let to = output.row(index).wrapping_add(columns.start);
            // SAFETY: the view's rows lie apart from each other, within the output.
            unsafe { to.copy_from_nonoverlapping(row.as_ptr(), row.len()) };
        }
    }
    let stride = |stride: usize| isize::try_from(stride).expect("a stride within a slice");
    for (index, &Term { left: (left, l), right: (right, r), factor }) in terms.iter().enumerate() {
        // SAFETY: all three views lie within what they are of, and nothing else uses the piece, so that
        // it overlaps with neither factor; it is read only where it was set.
        unsafe {
            gemm::gemm(
                rows.len(),
                columns.len(),
                l.columns,
                output.row(rows.start).wrapping_add(columns.start),
                stride(out.column),
                stride(out.row),
                index > 0 || !matches!(start, Start::Zero),
                left.as_ptr().add(l.offset + rows.start * l.row),
                stride(l.column),
                stride(l.row),
                right.as_ptr().add(r.offset + columns.start * r.column),
                stride(r.column),
                stride(r.row),
                1.0,
                factor,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "what is exact is to be exact")]
pub(crate) mod tests {
    use super::*;
    use crate::extension::tests::not_checked;

    pub(crate) fn random(count: usize, seed: u64) -> Vec<f32> {
        let data = crate::extension::tests::random([1, count], 1.0, seed);
        data.iter::<f32>().collect()
    }

    /// A matrix whose rows' elements lie beside each other, and one whose columns' do.
    pub(crate) fn either_order(offset: usize, rows: usize, columns: usize) -> [View; 2] {
        [
            View::new(offset, rows, columns, columns),
            View::new(offset, columns, rows, rows).transposed(),
        ]
    }

    #[test]
    fn products_of_views() {
        // [[1, 2], [3, 4]] within rows of 3, times the transpose of [[5, 6], [7, 8]].
        let left = [9.0, 1.0, 2.0, 9.0, 3.0, 4.0];
        let right = [5.0, 6.0, 7.0, 8.0];
        let mut output = [9.0; 5];
        multiply(
            (&mut output, View::new(0, 2, 2, 3)),
            (&left, View::new(1, 2, 2, 3)),
            (&right, View::new(0, 2, 2, 2).transposed()),
            0.5,
        );
        assert_eq!(output, [8.5, 11.5, 9.0, 19.5, 26.5]);
    }

    /// The kernels of this crate, beside AMX's, which this processor has the instructions for.
    fn kernels() -> Vec<Unit> {
        #[cfg(target_arch = "x86_64")]
        let kernels = [
            crate::avx512::Avx512::get().map(Unit::Avx512),
            crate::avx2::Avx2::get().map(Unit::Avx2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let kernels: [Option<Unit>; 0] = [];
        let there: Vec<Unit> = kernels.into_iter().flatten().collect();
        if there.len() < kernels.len() {
            let (missing, all) = (kernels.len() - there.len(), kernels.len());
            not_checked(&format!(
                "{missing} of {all} kernels: this processor has not what they need"
            ));
        }
        there
    }

    /// Enough multiplications for all threads.
    #[test]
    fn a_sum_starts_from_a_row_on_all_threads() {
        let (rows, columns, depth, rank) = (50, 400, 400, 3);
        assert!(rows * columns * depth >= PARALLEL);
        let small = |count: usize, step: usize| -> Vec<f32> {
            (0..count).map(|index| (index * step % 7) as f32 - 3.0).collect()
        };
        let (left, right) = (small(rows * depth, 3), small(depth * columns, 5));
        let (low, up) = (small(rows * rank, 2), small(rank * columns, 4));
        let start = small(columns, 1);
        let terms = [
            Term {
                left: (&left, View::new(0, rows, depth, depth)),
                right: (&right, View::new(0, depth, columns, columns)),
                factor: 0.5,
            },
            Term {
                left: (&low, View::new(0, rows, rank, rank)),
                right: (&up, View::new(0, rank, columns, columns)),
                factor: -2.0,
            },
        ];
        let dot = |left: &[f32], right: &[f32], row: usize, column: usize, depth: usize| -> f32 {
            (0..depth).map(|k| left[row * depth + k] * right[k * columns + column]).sum()
        };
        // Small integers: every sum is exact.
        let units = kernels().into_iter().chain([Unit::Any]);
        for sum in units.map(|unit| sum_on(unit, &terms, Some(&start))) {
            for (place, &found) in sum.iter().enumerate() {
                let (row, column) = (place / columns, place % columns);
                let products = 0.5 * dot(&left, &right, row, column, depth)
                    - 2.0 * dot(&low, &up, row, column, rank);
                assert_eq!(found, start[column] + products, "row {row}, column {column}");
            }
        }
    }

    /// Sizes whose pieces differ from each other, sums over more than `gemm` adds up at once, and every
    /// order in which the elements of the factors can lie.
    #[test]
    fn threads_change_no_bit() {
        let sizes = [
            [717, 16, 800],
            [50, 840, 1030],
            [301, 399, 700],
            // An update of rank 1 or 2: a third of the rows is few enough elements for another order.
            [2304, 1, 3072],
            [1152, 2, 3072],
        ];
        for [rows, columns, depth] in sizes {
            let (left, right) = (random(rows * depth, 1), random(depth * columns, 2));
            let (low, up) = (random(rows * 5, 3), random(5 * columns, 4));
            let start = random(columns, 5);
            let lefts = either_order(0, rows, depth);
            let rights = either_order(0, depth, columns);
            for (l, r) in lefts.into_iter().flat_map(|l| rights.map(|r| (l, r))) {
                let terms = [
                    Term { left: (&left, l), right: (&right, r), factor: 0.5 },
                    Term {
                        left: (&low, View::new(0, rows, 5, 5)),
                        right: (&up, View::new(0, 5, columns, columns)),
                        factor: -2.0,
                    },
                ];
                assert!(rows * columns * depth >= PARALLEL);
                let sums = [1, 2, 3, 7, 16].map(|threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    pool.unwrap().install(|| sum_on(Unit::Any, &terms, Some(&start)))
                });
                assert!(sums.iter().all(|sum| *sum == sums[0]), "{rows} {columns} {depth}");
            }
        }
    }

    /// What the kernels take over; committed results come out again on either. The longest sums are
    /// left out where `gemm`'s chains are longer (`crate::chain`).
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn kernels_have_the_bits_of_gemm() {
        let sizes =
            [2, 3, 16, 63, 65, 90, 130].map(|rows| [2, 3, 16, 65, 86, 200].map(|n| [rows, n]));
        let kernels = kernels();
        let (left, right) = (random(65 * 1100, 1), random(1100 * 65, 2));
        let terms = [Term {
            left: (&left, View::new(0, 65, 1100, 1100)),
            right: (&right, View::new(0, 1100, 65, 65)),
            factor: 1.0,
        }];
        let same = sum_on(Unit::Any, &terms, None) == crate::chain::tests::defined(&terms, None);
        let depths: &[usize] = if same { &[2, 3, 16, 512, 717] } else { &[2, 3, 16, 512] };
        let mut taken = 0;
        for [rows, columns] in sizes.as_flattened().iter().copied() {
            for &depth in depths {
                // Zeros too, whose sign counts.
                let left: Vec<f32> =
                    random(rows * depth, 1).into_iter().map(|value| value.max(0.0)).collect();
                let mut right = random(depth * columns, 2);
                right[..depth * columns / 2].fill(0.0);
                for l in either_order(0, rows, depth) {
                    for r in either_order(0, depth, columns) {
                        let terms = [Term { left: (&left, l), right: (&right, r), factor: -0.7 }];
                        if !crate::chain::are_chained(&terms) {
                            continue;
                        }
                        taken += 1;
                        let bits = |unit| sum_on(unit, &terms, None).into_iter().map(f32::to_bits);
                        for &kernel in &kernels {
                            let same = bits(kernel).eq(bits(Unit::Any));
                            assert!(same, "{rows} {columns} {depth} {l:?} {r:?}");
                        }
                    }
                }
            }
        }
        assert!(taken > 100, "{taken}");
    }

    /// Every order in which the elements of the factors can lie; outputs of one vector and of many, and
    /// of every height of a tile; sums that are begun anew; any number of threads.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn an_element_is_a_chain_of_fused_multiplications() {
        let shapes = [
            [1, 1, 1],
            [16, 64, 700],
            [17, 130, 1100],
            [43, 16, 2100],
            [47, 5, 33],
            [29, 32, 300],
            [15, 47, 1024],
            [333, 201, 120],
        ];
        let kernels = kernels();
        for [rows, columns, depth] in shapes {
            let (left, right) = (random(rows * depth + 7, 1), random(depth * columns + 9, 2));
            let (low, up) = (random(rows * 5, 3), random(5 * columns, 4));
            let start = random(columns, 5);
            let lefts = either_order(7, rows, depth);
            let rights = either_order(9, depth, columns);
            for (l, r) in lefts.into_iter().flat_map(|l| rights.map(|r| (l, r))) {
                let terms = [
                    Term { left: (&left, l), right: (&right, r), factor: 0.7 },
                    Term {
                        left: (&low, View::new(0, rows, 5, 5)),
                        right: (&up, View::new(0, columns, 5, 5).transposed()),
                        factor: -2.3,
                    },
                ];
                for (terms, start) in [(&terms[..], Some(&*start)), (&terms[..1], None)] {
                    let expected = crate::chain::tests::defined(terms, start);
                    let threads = [1, 2, 3, 16];
                    let ways = kernels.iter().flat_map(|&unit| threads.map(|n| (unit, n)));
                    for (unit, threads) in ways {
                        // Within wider rows, of which the sum is to leave the rest alone.
                        let wide = columns + 3;
                        let mut found = vec![2.0; 1 + rows * wide];
                        let view = View::new(1, rows, columns, wide);
                        let target = Target::new(&mut found, view);
                        let start = start.map_or(Start::Zero, Start::Row);
                        // SAFETY: the slice's elements are all there, and borrowed.
                        unsafe { sum(unit, &target, start, terms, threads) };
                        assert_eq!(found[0], 2.0);
                        let found = found[1..].chunks_exact(wide);
                        for (found, expected) in found.zip(expected.chunks_exact(columns)) {
                            assert!(
                                found[..columns] == *expected,
                                "{unit:?} {rows} {columns} {depth} {threads}"
                            );
                            assert_eq!(found[columns..], [2.0; 3]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_element_is_in_one_piece() {
        for (count, parts, tile) in [(717, 2, 6), (768, 3, 64), (130, 1, 64), (1000, 7, 64)] {
            let all: Vec<usize> =
                (0..parts).flat_map(|part| share(count, part, parts, tile)).collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
        // Wide outputs are cut into columns, narrow ones into rows, small ones not at all.
        let pieces = |[rows, columns]: [usize; 2], left: bool, threads: usize| {
            let strips = strips([rows, columns], left, threads);
            [row_parts(rows, strips, threads, smallest_rows(columns)), strips]
        };
        assert_eq!(pieces([717, 3072], false, 2), [1, 24]);
        assert_eq!(pieces([717, 768], false, 2), [1, 6]);
        assert_eq!(pieces([717, 16], false, 2), [5, 1]);
        assert_eq!(pieces([717, 1], false, 2), [2, 1]);
        assert_eq!(pieces([100, 100], false, 16), [1, 1]);
        // What takes long to be rearranged is not rearranged twice.
        assert_eq!(pieces([1024, 768], true, 2), [6, 1]);
        assert_eq!(pieces([16, 768], true, 2), [1, 6]);
    }

    #[test]
    #[should_panic(expected = "end()")]
    fn a_view_beyond_its_slice_is_refused() {
        let view = View::new(0, 2, 2, 2);
        multiply((&mut [0.0; 4], view), (&[0.0; 4], view), (&[0.0; 3], view), 1.0);
    }

    #[test]
    #[should_panic(expected = "within memory")]
    fn a_view_beyond_memory_is_refused() {
        let view = View::new(0, 2, 2, 2);
        // Its last element's place, wrapped around, would be the slice's second.
        let far = View::new(0, 3, 2, usize::MAX / 2);
        multiply((&mut [0.0; 6], View::new(0, 3, 2, 2)), (&[0.0; 4], far), (&[0.0; 4], view), 1.0);
    }
}
