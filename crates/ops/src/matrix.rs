//! Matrix products of views into slices: the one `unsafe` module, around [`gemm::gemm`], the code
//! behind burn's own.
#![expect(unsafe_code, reason = "`gemm` takes pointers; every access is checked here first")]

use gemm::Parallelism;

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

/// What happens to the output's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// They become the product.
    Set,
    /// The product is added to them.
    Add,
}

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
    product(output, Output::Set, left, right, factor, Parallelism::None);
}

/// `output = factor · left · right`, or that added to it, on all threads where it is large.
///
/// # Panics
///
/// As [`multiply`].
pub(crate) fn multiply_parallel(
    output: (&mut [f32], View),
    what: Output,
    left: (&[f32], View),
    right: (&[f32], View),
    factor: f32,
) {
    let size = output.1.rows * output.1.columns * left.1.columns;
    let threads = if size < PARALLEL { Parallelism::None } else { Parallelism::Rayon(0) };
    product(output, what, left, right, factor, threads);
}

fn product(
    output: (&mut [f32], View),
    what: Output,
    left: (&[f32], View),
    right: (&[f32], View),
    factor: f32,
    threads: Parallelism,
) {
    let ((output, out), (left, l), (right, r)) = (output, left, right);
    assert!(out.rows == l.rows && out.columns == r.columns && l.columns == r.rows);
    assert!(out.rows > 0 && out.columns > 0 && l.columns > 0);
    assert!(out.end() <= output.len() && l.end() <= left.len() && r.end() <= right.len());
    // Two elements of the output at one place would be written twice.
    assert!(out.column == 1 && out.row >= out.columns);
    let stride = |stride: usize| isize::try_from(stride).expect("a stride within a slice");
    // SAFETY: all three views lie within their slices, and the output is borrowed mutably, so that
    // it overlaps with neither input.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            l.columns,
            output.as_mut_ptr().add(out.offset),
            stride(out.column),
            stride(out.row),
            what == Output::Add,
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

    #[test]
    #[should_panic(expected = "end()")]
    fn a_view_beyond_its_slice_is_refused() {
        let view = View::new(0, 2, 2, 2);
        multiply((&mut [0.0; 4], view), (&[0.0; 4], view), (&[0.0; 3], view), 1.0);
    }
}
