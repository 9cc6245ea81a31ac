//! Matrix products of views into slices, by [`gemm::gemm`], the code behind burn's own, or on AMX: one
//! of the `unsafe` modules.
#![expect(unsafe_code, reason = "`gemm` takes pointers; every access is checked here first")]

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
        self.offset + (self.rows - 1) * self.row + (self.columns - 1) * self.column + 1
    }
}

/// What a sum of products starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    /// Nothing: what is in the output is not read.
    Zero,
    /// What is in the output.
    #[cfg_attr(
        not(all(target_arch = "x86_64", target_os = "linux")),
        expect(dead_code, reason = "sums of several terms start so on AMX alone")
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

/// Rows that one thread sets to a row.
const SET_ROWS: usize = 32;

/// Products of fewer multiplications stay on one thread, as burn's do.
const PARALLEL: usize = 192 * 192 * 192;

/// `output = factor · left · right`, on one thread.
///
/// # Panics
///
/// If the shapes do not fit each other, a dimension is 0, or a view leaves its slice.
pub(crate) fn multiply(
    output: (&mut [f32], View),
    left: (&[f32], View),
    right: (&[f32], View),
    factor: f32,
) {
    let (elements, view) = output;
    let output = Target { start: elements.as_mut_ptr(), length: elements.len(), view };
    // SAFETY: the slice's elements are all there, and borrowed.
    unsafe { sum(&output, Start::Zero, &[Term { left, right, factor }], Parallelism::None) }
}

/// The sum of these terms, row by row, on all threads where the first is large; with `row` added to
/// each of its rows, if there is one.
///
/// # Panics
///
/// As [`multiply`], if there is no term, and if `row` is not as wide as the sum.
pub(crate) fn sum_parallel(terms: &[Term<'_>], row: Option<&[f32]>) -> Vec<f32> {
    let (rows, columns) = (terms[0].left.1.rows, terms[0].right.1.columns);
    let mut output = Vec::with_capacity(rows * columns);
    let view = View::new(0, rows, columns, columns);
    let target = Target { start: output.as_mut_ptr(), length: rows * columns, view };
    let start = row.map_or(Start::Zero, Start::Row);
    // SAFETY: there is room for them all, and a sum that does not start from the output sets each
    // element of its view, which here are all.
    unsafe {
        sum(&target, start, terms, threads(terms[0]));
        output.set_len(rows * columns);
    }
    output
}

fn threads(term: Term<'_>) -> Parallelism {
    let size = term.left.1.rows * term.left.1.columns * term.right.1.columns;
    if size < PARALLEL { Parallelism::None } else { Parallelism::Rayon(0) }
}

/// Where a product goes.
pub(crate) struct Target {
    start: *mut f32,
    length: usize,
    pub(crate) view: View,
}

impl Target {
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
unsafe fn sum(output: &Target, start: Start<'_>, terms: &[Term<'_>], threads: Parallelism) {
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
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if let Some(amx) = crate::amx::Amx::get()
        && crate::amx::pays(terms)
    {
        // SAFETY: the output is as promised, and its view lies within it.
        unsafe { amx.multiply(output, start, terms, matches!(threads, Parallelism::Rayon(_))) };
        return;
    }
    if let Start::Row(row) = start {
        let set = |index: usize| {
            // SAFETY: the view's rows lie apart from each other, within the output.
            unsafe { output.row(index).copy_from_nonoverlapping(row.as_ptr(), row.len()) };
        };
        match threads {
            Parallelism::None => (0..out.rows).for_each(set),
            Parallelism::Rayon(_) => {
                (0..out.rows).into_par_iter().with_min_len(SET_ROWS).for_each(set);
            }
        }
    }
    let stride = |stride: usize| isize::try_from(stride).expect("a stride within a slice");
    for (index, &Term { left: (left, l), right: (right, r), factor }) in terms.iter().enumerate() {
        // SAFETY: all three views lie within what they are of, and nothing else uses the output, so that
        // it overlaps with neither factor; it is read only where it was set.
        unsafe {
            gemm::gemm(
                out.rows,
                out.columns,
                l.columns,
                output.row(0),
                stride(out.column),
                stride(out.row),
                index > 0 || !matches!(start, Start::Zero),
                left.as_ptr().add(l.offset),
                stride(l.column),
                stride(l.row),
                right.as_ptr().add(r.offset),
                stride(r.column),
                stride(r.row),
                1.0,
                factor,
                false,
                false,
                false,
                threads,
            );
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "what is exact is to be exact")]
mod tests {
    use super::*;

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

    /// Too few rows for AMX, and enough multiplications for all threads.
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
        let sum = sum_parallel(&terms, Some(&start));
        let dot = |left: &[f32], right: &[f32], row: usize, column: usize, depth: usize| -> f32 {
            (0..depth).map(|k| left[row * depth + k] * right[k * columns + column]).sum()
        };
        // Small integers: every sum is exact.
        for (place, &found) in sum.iter().enumerate() {
            let (row, column) = (place / columns, place % columns);
            let products = 0.5 * dot(&left, &right, row, column, depth)
                - 2.0 * dot(&low, &up, row, column, rank);
            assert_eq!(found, start[column] + products, "row {row}, column {column}");
        }
    }

    #[test]
    #[should_panic(expected = "end()")]
    fn a_view_beyond_its_slice_is_refused() {
        let view = View::new(0, 2, 2, 2);
        multiply((&mut [0.0; 4], view), (&[0.0; 4], view), (&[0.0; 3], view), 1.0);
    }
}
