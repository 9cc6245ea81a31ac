//! Functions of `f32` without branches and tables, which compilers turn into vector instructions.

use multiversion::multiversion;

/// Lanes of a sum: as many partial sums are kept, so that adding is done many at a time.
const LANES: usize = 16;

/// `eˣ`, to 2 units in the last place. It is 0 below -87.3, where that is 1.2 · 10⁻³⁸ and numbers below
/// 1.18 · 10⁻³⁸ are subnormal, and above 88.3 what it is there, 2.2 · 10³⁸; PyTorch's is subnormal from
/// -87.34 on down, and infinite above 88.72.
///
/// `eˣ = 2ⁿ eʳ` with `n = round(x / ln 2)` and `|r| ≤ ½ ln 2`; `eʳ` by the polynomial of Cephes'
/// `expf`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves an integer in the last bits.
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first of which is exact in a few bits.
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut polynomial = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        polynomial = polynomial * r + coefficient;
    }
    let fraction = polynomial * r * r + r + 1.0;
    // The bits of `shifted` hold n: moved to the exponent they are 2ⁿ.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.3 { 0.0 } else { fraction * power }
}

/// The error function, to 1.2e-7 (one unit in the last place below 1): near 0 an odd polynomial, and
/// beyond it `1 - exp(-p(|x|))`, with the coefficients of N. Juffa's `my_erff`. Both are computed for
/// every element, so that a row takes one path.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    // In Horner's order, from the highest power down.
    const NEAR: [f32; 6] = [
        -5.967_617e-4,
        4.991_194_4e-3,
        -2.676_813_5e-2,
        1.128_199_2e-1,
        -3.761_253_4e-1,
        1.283_791_7e-1,
    ];
    const FAR: [f32; 7] = [
        -1.728_534_7e-5,
        3.831_971_3e-4,
        -3.883_964_4e-3,
        2.425_462_2e-2,
        -1.067_778_8e-1,
        -6.348_468_7e-1,
        -1.287_175_1e-1,
    ];
    let horner = |coefficients: &[f32], at: f32| {
        coefficients[1..].iter().fold(coefficients[0], |sum, c| sum * at + c)
    };
    let size = x.abs();
    let near = horner(&NEAR, x * x) * x + x;
    let far = (1.0 - exp(horner(&FAR, size) * size - size)).copysign(x);
    if size > 0.927_734_4 { far } else { near }
}

/// Σ f(a, b) over two slices of one length.
#[inline(always)]
pub(crate) fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 =
        a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(&a, &b)| f(a, b)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += f(a[lane], b[lane]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Σ f(a) over a slice.
#[inline(always)]
pub(crate) fn sum(a: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sum2(a, a, |a, _| f(a))
}

/// `row += other`.
#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
pub(crate) fn add(row: &mut [f32], other: &[f32]) {
    row.iter_mut().zip(other).for_each(|(value, other)| *value += other);
}

/// `row += a · b`, element by element.
#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
pub(crate) fn add_product(row: &mut [f32], a: &[f32], b: &[f32]) {
    for ((value, a), b) in row.iter_mut().zip(a).zip(b) {
        *value += a * b;
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "what is exact is to be exact")]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for step in -870_000..=880_000 {
            let x = step as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.4e-7, "{worst:e}");
        assert_eq!([exp(0.0), exp(-100.0), exp(f32::NEG_INFINITY)], [1.0, 0.0, 0.0]);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_within_a_unit_in_the_last_place_below_1() {
        let mut worst = 0.0f64;
        for step in -60_000..=60_000 {
            let x = step as f32 * 1e-4;
            worst = worst.max((f64::from(erf(x)) - libm::erf(f64::from(x))).abs());
        }
        assert!(worst < 1.2e-7, "{worst:e}");
        assert_eq!([erf(-20.0), erf(f32::INFINITY)], [-1.0, 1.0]);
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn sums_take_in_every_element() {
        let values: Vec<f32> = (0..37).map(|value| value as f32).collect();
        assert_eq!(sum(&values, |value| value), 666.0);
        assert_eq!(sum2(&values, &values, |a, b| a * b), 16_206.0);
    }
}
