//! In which order large sums of products are added up by this crate's own kernels: the same on any number
//! of threads, with AVX-512 and with AVX2.
//!
//! It is `gemm`'s on most processors, so that those kernels have its bits. (With AVX2 `gemm`'s chains are
//! as long as the first cache's ways allow: of 12 they are longer than these, of 8 they are these.)
//!
//! An element of the output is a chain of fused multiplications and additions in the order of what is
//! summed over: as few chains as have at most [`DEPTH`] elements, of one length but the last, each times
//! the term's factor and added to the output in turn.

use std::ops::Range;

use crate::matrix::Term;

/// Elements that are summed up before they are added to the output.
pub(crate) const DEPTH: usize = 512;

/// The ranges of what is summed over that are chains of their own.
pub(crate) fn chains(depth: usize) -> impl Iterator<Item = Range<usize>> {
    let length = depth.div_ceil(depth.div_ceil(DEPTH));
    (0..depth).step_by(length).map(move |first| first..depth.min(first + length))
}

/// Whether neither the output nor what is summed over is so small that `gemm` adds up in another order.
pub(crate) fn are_chained(terms: &[Term<'_>]) -> bool {
    terms.iter().all(|Term { left: (_, left), right: (_, right), .. }| {
        let (rows, columns, depth) = (left.rows, right.columns, left.columns);
        rows.max(columns) > 64 && rows * columns > 256 && rows.min(columns).min(depth) > 2
    })
}

/// How many blocks of these depths are `most` rows at most, from the first on.
pub(crate) fn fitting(depths: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut depth = 0;
    let fitting = depths.take_while(|block| {
        depth += block;
        depth <= most
    });
    fitting.count()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::matrix::View;

    /// The sum as the module's documentation defines it.
    pub(crate) fn defined(terms: &[Term<'_>], start: Option<&[f32]>) -> Vec<f32> {
        let (rows, columns) = (terms[0].left.1.rows, terms[0].right.1.columns);
        let at = |(elements, view): (&[f32], View), row: usize, column: usize| {
            elements[view.offset + row * view.row + column * view.column]
        };
        let element = |place: usize| {
            let (row, column) = (place / columns, place % columns);
            let mut element = start.map_or(0.0, |start| start[column]);
            for term in terms {
                for chain in chains(term.left.1.columns) {
                    let sum = chain.fold(0.0f32, |sum, k| {
                        at(term.left, row, k).mul_add(at(term.right, k, column), sum)
                    });
                    element = sum.mul_add(term.factor, element);
                }
            }
            element
        };
        (0..rows * columns).map(element).collect()
    }

    #[test]
    fn chains_are_of_one_length_but_the_last() {
        assert_eq!(chains(512).count(), 1);
        assert_eq!(chains(1100).collect::<Vec<_>>(), [0..367, 367..734, 734..1100]);
    }
}
