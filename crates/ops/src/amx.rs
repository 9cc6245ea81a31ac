//! Matrix products of `f32` on AMX, the matrix unit of Intel's server processors since 2023, which
//! multiplies bfloat16: one of the `unsafe` modules, for there is no safe interface to it.
//!
//! A float32 has 24 bits, a bfloat16 8, so that every factor is *exactly* the sum of three bfloat16,
//! `a = a₁ + a₂ + a₃`, each at most 2⁻⁸ of the one before. Of the nine products of parts, the six
//! larger ones are computed,
//!
//! ```text
//! a · b ≈ a₁b₁ + (a₁b₂ + a₂b₁) + (a₂b₂ + a₁b₃ + a₃b₁)
//! ```
//!
//! each exact, and added up in float32. What is left out is at most 2⁻²⁴ of `a · b`, as much as float32
//! rounds off a product. Since the unit adds up 32 products before their sum is rounded to the output's
//! size, the result is *nearer* to the exact one than that of a chain of float32 multiplications and
//! additions: a test holds both against float64. It is the scheme that oneMKL calls `float_to_bf16x3`
//! and cuBLAS BF16x9, with the products that float32 can tell apart.
//!
//! Deviation: numbers below 2⁻¹²⁶ count as 0, and the last parts of those below 2⁻¹⁰² are lost. A factor
//! that is infinite, or above 3.39 · 10³⁸, makes the result NaN where float32 would say infinite.
#![expect(unsafe_code, reason = "tiles are reached in assembly, and through pointers alone")]

use std::arch::asm;
use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_fmadd_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_or_si512,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_srli_epi32, _mm512_sub_ps,
};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use raw_cpuid::CpuId;
use rayon::prelude::*;

use crate::avx512::{load, mask, transpose};
use crate::matrix::{Start, Target, Term, View, have_unit_strides, share};

/// Rows or columns of a tile, and the pairs of bfloat16 in one of its rows.
const TILE: usize = 16;
/// Rows of the left factor, or columns of the right one, that are multiplied at once: two tiles.
const PANEL: usize = 2 * TILE;
/// What is summed over at once: a tile's pairs.
const DEPTH: usize = 2 * TILE;
/// Parts of a number.
const PARTS: usize = 3;
/// Lines of 64 bytes in a block, that is, a panel's tiles of one depth: part by part, the first tile
/// and the second.
const BLOCK: usize = PARTS * PANEL;
/// Blocks whose products are added up in tiles. Sums of more are added up in the output, so that this
/// decides last bits.
const SUMMED: usize = 12;
/// Panels of the right factor of which so many blocks stay in a core's cache of 2 MiB.
const CACHED: usize = 12;

/// Rows, columns and depth of the smallest product that is faster so, and all of them multiplied.
const SMALLEST: [usize; 2] = [64, 1 << 22];

static USED: AtomicBool = AtomicBool::new(true);

/// Whether products may use AMX in this process, as they do where it is there.
pub(crate) fn set_used(used: bool) {
    USED.store(used, Ordering::Relaxed);
}

/// The right to use AMX: there is none where the processor or the system does not have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx(());

impl Amx {
    pub(crate) fn get() -> Option<Self> {
        static ALLOWED: LazyLock<bool> = LazyLock::new(|| supported() && permitted());
        (USED.load(Ordering::Relaxed) && *ALLOWED).then_some(Self(()))
    }

    /// `output = start + Σ factor · left · right`; the same bits on any number of threads.
    ///
    /// # Safety
    ///
    /// The output's view lies within elements that can be written and, if the sum starts from them,
    /// read. No two of its elements lie at one place, nothing else reads or writes them meanwhile, and
    /// [`pays`] says that the terms are ones for AMX.
    pub(crate) unsafe fn multiply(
        self,
        output: &Target,
        start: Start<'_>,
        terms: &[Term<'_>],
        threads: usize,
    ) {
        let product = Products { terms, output, start };
        let [rows, columns] = [output.view.rows, output.view.columns].map(|n| n.div_ceil(PANEL));
        let [down, across] = grid([rows, columns], threads);
        let task = |task: usize| {
            let rows = share(rows, task / across, down, 1);
            let columns = share(columns, task % across, across, 1);
            // SAFETY: there is AMX, and so AVX-512; the output is as promised, and no other task has
            // both these rows and these columns.
            unsafe { product.compute(self, rows, columns) };
        };
        match threads {
            1 => task(0),
            _ => (0..down * across).into_par_iter().for_each(task),
        }
    }
}

/// Whether the first term is large enough to be worth taking its factors apart, and AMX can take the
/// others along.
pub(crate) fn pays(terms: &[Term<'_>]) -> bool {
    let Some(Term { left: (_, left), right: (_, right), .. }) = terms.first() else { return false };
    let sizes = [left.rows, left.columns, right.columns];
    sizes.iter().all(|&size| size >= SMALLEST[0])
        && sizes.iter().product::<usize>() >= SMALLEST[1]
        && have_unit_strides(terms)
}

/// Whether the processor multiplies tiles of bfloat16. All that do have AVX-512.
fn supported() -> bool {
    let cpuid = CpuId::new();
    cpuid.get_extended_feature_info().is_some_and(|features| {
        features.has_amx_bf16() && features.has_amx_tile() && is_x86_feature_detected!("avx512f")
    })
}

/// Asks the kernel for this process's use of tiles, which also says whether it keeps them for each
/// thread.
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: takes two numbers, and at most enlarges what is saved of this process's threads.
    let answer =
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    answer == 0
}

/// Rows and columns of a grid with one task for each thread, in which the fewest panels are taken
/// apart: those of the left factor again for every few of the right one's.
fn grid([rows, columns]: [usize; 2], threads: usize) -> [usize; 2] {
    let work = |down: usize| {
        let across = threads / down;
        let (tall, wide) = (rows.div_ceil(down), columns.div_ceil(across));
        // A task's products, each of which takes about 20 times as long as one panel's taking apart.
        20 * tall * wide + tall * wide.div_ceil(CACHED) + wide
    };
    let divisors = (1..=threads).filter(|down| threads.is_multiple_of(*down));
    let down = divisors.min_by_key(|&down| work(down)).unwrap_or(1);
    [down, threads / down]
}

/// What a line of a tile is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// A row of the left factor: its elements in pairs, the one and that 16 after it.
    Rows,
    /// Such a pair of each column of the right factor.
    Pairs,
}

/// A factor; its view's columns are what is summed over.
#[derive(Clone, Copy)]
struct Factor<'a> {
    elements: &'a [f32],
    view: View,
    lines: Lines,
}

impl Factor<'_> {
    /// Writes a panel's `blocks`.
    #[target_feature(enable = "avx512f")]
    fn split(&self, panel: usize, blocks: Range<usize>, parts: &mut [MaybeUninit<__m512i>]) {
        for (block, parts) in blocks.zip(parts.chunks_exact_mut(BLOCK)) {
            for tile in 0..2 {
                self.split_tile([2 * panel + tile, block], &mut parts[tile * TILE..]);
            }
        }
    }

    /// Writes the parts of 16 rows and 32 columns, each [`PANEL`] lines behind the one before. What lies
    /// beyond the factor is 0.
    #[target_feature(enable = "avx512f")]
    fn split_tile(&self, [tile, block]: [usize; 2], parts: &mut [MaybeUninit<__m512i>]) {
        let View { offset, row, column, .. } = self.view;
        let rows = self.view.rows.saturating_sub(tile * TILE).min(TILE);
        let columns =
            [0, TILE].map(|half| self.view.columns.saturating_sub(block * DEPTH + half).min(TILE));
        let start =
            [0, TILE].map(|half| offset + tile * TILE * row + (block * DEPTH + half) * column);
        // The vectors that lie as they are needed are the lines themselves.
        let along_rows = column == 1;
        let vector = |half: usize, index: usize| {
            let (count, apart, length) =
                if along_rows { (rows, row, columns[half]) } else { (columns[half], column, rows) };
            if index < count && length > 0 {
                let at = start[half] + index * apart;
                &self.elements[at..at + length]
            } else {
                &[]
            }
        };
        if along_rows == (self.lines == Lines::Rows) {
            for line in 0..TILE {
                write_pairs(load(vector(0, line)), load(vector(1, line)), &mut parts[line..]);
            }
        } else {
            let mut halves = [[_mm512_setzero_ps(); TILE]; 2];
            for (half, vectors) in halves.iter_mut().enumerate() {
                for (index, loaded) in vectors.iter_mut().enumerate() {
                    *loaded = load(vector(half, index));
                }
                transpose(vectors);
            }
            for line in 0..TILE {
                write_pairs(halves[0][line], halves[1][line], &mut parts[line..]);
            }
        }
    }
}

/// Writes a line of pairs of each part.
#[inline]
#[target_feature(enable = "avx512f")]
fn write_pairs(low: __m512, high: __m512, parts: &mut [MaybeUninit<__m512i>]) {
    let (low, high) = (parts_of(low), parts_of(high));
    for part in 0..PARTS {
        let pair = _mm512_or_si512(_mm512_srli_epi32::<16>(low[part]), high[part]);
        parts[part * PANEL].write(pair);
    }
}

/// Three bfloat16 whose sum this is, each in the upper half of an element whose lower half is 0.
#[inline]
#[target_feature(enable = "avx512f")]
fn parts_of(x: __m512) -> [__m512i; PARTS] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    let half = _mm512_set1_epi32(0x8000);
    let mut rest = x;
    let mut parts = [_mm512_set1_epi32(0); PARTS];
    for part in &mut parts[..PARTS - 1] {
        let rounded = _mm512_add_epi32(_mm512_castps_si512(rest), half);
        *part = _mm512_and_si512(rounded, upper);
        rest = _mm512_sub_ps(rest, _mm512_castsi512_ps(*part));
    }
    parts[PARTS - 1] = _mm512_and_si512(_mm512_castps_si512(rest), upper);
    parts
}

/// The sums of a panel's rows with a panel's columns.
#[repr(align(64))]
struct Sums([f32; PANEL * PANEL]);

/// `LDTILECFG`'s operand: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// This thread's tiles, set up until it is dropped.
struct Tiles(PhantomData<*const ()>);

impl Tiles {
    fn configure(_: Amx) -> Self {
        static CONFIG: TileConfig = TileConfig {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
            rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        // SAFETY: there is AMX, and the configuration is a valid one of 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) }
        Self(PhantomData)
    }

    /// The sums over these blocks of a panel of each factor.
    ///
    /// # Safety
    ///
    /// Every line of both was written.
    #[expect(clippy::unused_self, reason = "it says that the tiles are set up")]
    unsafe fn multiply(&self, [left, right]: [&[MaybeUninit<__m512i>]; 2], sums: &mut Sums) {
        assert!(left.len() == right.len() && !left.is_empty() && left.len().is_multiple_of(BLOCK));
        // A part of two tiles of rows goes to 4 and 5, of two tiles of columns to 6 and 7. Each part is
        // loaded as soon as the one before it has been multiplied by both others, and four lines of the
        // next block of rows come nearer with each product.
        macro_rules! load {
            (4, $part:literal) => {
                concat!("tileloadd tmm4, [{left} + {line} + 2048 * ", $part, "]\n")
            };
            (5, $part:literal) => {
                concat!("tileloadd tmm5, [{left} + {line} + 1024 + 2048 * ", $part, "]\n")
            };
            (6, $part:literal) => {
                concat!("tileloadd tmm6, [{right} + {line} + 2048 * ", $part, "]\n")
            };
            (7, $part:literal) => {
                concat!("tileloadd tmm7, [{right} + {line} + 1024 + 2048 * ", $part, "]\n")
            };
        }
        macro_rules! add {
            ($row:literal, $column:literal, to $sum:literal, $nth:literal) => {
                concat!(
                    "tdpbf16ps tmm",
                    $sum,
                    ", tmm",
                    $row,
                    ", tmm",
                    $column,
                    "\n",
                    "prefetcht0 [{left} + {block} + 256 * ",
                    $nth,
                    "]\n",
                    "prefetcht0 [{left} + {block} + 64 + 256 * ",
                    $nth,
                    "]\n",
                    "prefetcht0 [{left} + {block} + 128 + 256 * ",
                    $nth,
                    "]\n",
                    "prefetcht0 [{left} + {block} + 192 + 256 * ",
                    $nth,
                    "]\n",
                )
            };
        }
        // SAFETY: a `Tiles` says that there is AMX and that this thread's tiles are set up; both
        // slices have this many blocks, whose every line was written, as promised; four tiles of
        // 16 rows fill the sums. A prefetch beyond the last block reads nothing.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                // a₃b₁
                concat!(load!(4, 2), load!(6, 0), load!(7, 0), load!(5, 2)),
                concat!(add!(4, 6, to 0, 0), add!(4, 7, to 1, 1), load!(4, 1)),
                concat!(add!(5, 6, to 2, 2), add!(5, 7, to 3, 3), load!(5, 1)),
                // a₂b₁
                concat!(add!(4, 6, to 0, 4), add!(5, 6, to 2, 5), load!(6, 1)),
                concat!(add!(4, 7, to 1, 6), add!(5, 7, to 3, 7), load!(7, 1)),
                // a₂b₂
                concat!(add!(4, 6, to 0, 8), add!(4, 7, to 1, 9), load!(4, 0)),
                concat!(add!(5, 6, to 2, 10), add!(5, 7, to 3, 11), load!(5, 0)),
                // a₁b₂
                concat!(add!(4, 6, to 0, 12), add!(5, 6, to 2, 13), load!(6, 2)),
                concat!(add!(4, 7, to 1, 14), add!(5, 7, to 3, 15), load!(7, 2)),
                // a₁b₃
                concat!(add!(4, 6, to 0, 16), add!(5, 6, to 2, 17), load!(6, 0)),
                concat!(add!(4, 7, to 1, 18), add!(5, 7, to 3, 19), load!(7, 0)),
                // a₁b₁
                concat!(add!(4, 6, to 0, 20), add!(4, 7, to 1, 21)),
                concat!(add!(5, 6, to 2, 22), add!(5, 7, to 3, 23)),
                "add {left}, {block}",
                "add {right}, {block}",
                "dec {blocks}",
                "jnz 2b",
                "tilestored [{sums} + {row}], tmm0",
                "tilestored [{sums} + {row} + 64], tmm1",
                "tilestored [{sums} + {row} + 2048], tmm2",
                "tilestored [{sums} + {row} + 2112], tmm3",
                left = inout(reg) left.as_ptr() => _,
                right = inout(reg) right.as_ptr() => _,
                blocks = inout(reg) left.len() / BLOCK => _,
                sums = in(reg) sums.0.as_mut_ptr(),
                line = in(reg) size_of::<__m512i>(),
                row = in(reg) PANEL * size_of::<f32>(),
                block = const BLOCK * size_of::<__m512i>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there is AMX, for these tiles were configured.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}

struct Products<'a> {
    terms: &'a [Term<'a>],
    output: &'a Target,
    start: Start<'a>,
}

impl Products<'_> {
    /// Computes panels of the output.
    ///
    /// # Safety
    ///
    /// There is AVX-512; the output is as [`Amx::multiply`] wants it, and nothing else reads or writes
    /// these panels of it meanwhile.
    #[target_feature(enable = "avx512f")]
    unsafe fn compute(&self, amx: Amx, rows: Range<usize>, columns: Range<usize>) {
        let mut parts = Box::new_uninit_slice((1 + CACHED) * SUMMED * BLOCK);
        let (left_parts, right_parts) = parts.split_at_mut(SUMMED * BLOCK);
        let mut sums = Sums([0.0; PANEL * PANEL]);
        let tiles = Tiles::configure(amx);
        let times = columns.len().div_ceil(CACHED);
        for time in 0..times {
            let cached = share(columns.len(), time, times, 1);
            let cached = columns.start + cached.start..columns.start + cached.end;
            let mut start = self.start;
            for (left, right, blocks, factor) in self.summed() {
                let length = blocks.len() * BLOCK;
                for (column, parts) in cached.clone().zip(right_parts.chunks_exact_mut(length)) {
                    right.split(column, blocks.clone(), parts);
                }
                for row in rows.clone() {
                    let left_parts = &mut left_parts[..length];
                    left.split(row, blocks.clone(), left_parts);
                    for (column, right) in cached.clone().zip(right_parts.chunks_exact(length)) {
                        // SAFETY: `split` has written every line; the rest as promised to this function.
                        unsafe {
                            tiles.multiply([left_parts, right], &mut sums);
                            self.write(&sums, factor, start, row * PANEL, column * PANEL);
                        }
                    }
                }
                start = Start::Output;
            }
        }
    }

    /// Each term's factors, by the blocks that are added up in tiles.
    fn summed(&self) -> impl Iterator<Item = (Factor<'_>, Factor<'_>, Range<usize>, f32)> {
        self.terms.iter().flat_map(|&Term { left, right, factor }| {
            let left = Factor { elements: left.0, view: left.1, lines: Lines::Rows };
            let view = right.1.transposed();
            let right = Factor { elements: right.0, view, lines: Lines::Pairs };
            let blocks = view.columns.div_ceil(DEPTH);
            let ranges =
                (0..blocks).step_by(SUMMED).map(move |first| first..blocks.min(first + SUMMED));
            ranges.map(move |blocks| (left, right, blocks, factor))
        })
    }

    /// Sets a panel of the output to the sums and what they start from.
    ///
    /// # Safety
    ///
    /// As that of [`Products::compute`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn write(&self, sums: &Sums, factor: f32, start: Start<'_>, row: usize, column: usize) {
        let factor = _mm512_set1_ps(factor);
        let view = self.output.view;
        let columns = (view.columns - column).min(PANEL);
        let masks = [mask(columns.min(TILE)), mask(columns.saturating_sub(TILE))];
        let added = match start {
            Start::Row(row) => {
                let row = &row[column..column + columns];
                [load(&row[..columns.min(TILE)]), load(&row[columns.min(TILE)..])]
            }
            Start::Zero | Start::Output => [_mm512_setzero_ps(); 2],
        };
        let from_output = matches!(start, Start::Output);
        let rows = sums.0.chunks_exact(PANEL).take(view.rows - row);
        for (index, sums) in rows.enumerate() {
            let output = self.output.row(row + index).wrapping_add(column);
            for half in 0..2 {
                let sums = load(&sums[half * TILE..(half + 1) * TILE]);
                let output = output.wrapping_add(half * TILE);
                // SAFETY: the masks end where the view does.
                unsafe {
                    let added = if from_output {
                        _mm512_maskz_loadu_ps(masks[half], output)
                    } else {
                        added[half]
                    };
                    _mm512_mask_storeu_ps(
                        output,
                        masks[half],
                        _mm512_fmadd_ps(sums, factor, added),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "what is exact is to be exact")]
mod tests {
    use std::iter;
    use std::sync::Once;

    use super::*;
    use crate::extension::tests::not_checked;
    use crate::matrix::tests::either_order;
    use crate::matrix::{multiply, sum_parallel};

    /// Where there is no AMX, these tests say so, and no more.
    fn have() -> bool {
        static SAID: Once = Once::new();
        let have = Amx::get().is_some();
        if !have {
            SAID.call_once(|| not_checked("products on AMX, which this processor or system lacks"));
        }
        have
    }

    fn by_rows(elements: &[f32], rows: usize, columns: usize) -> (&[f32], View) {
        (elements, View::new(0, rows, columns, columns))
    }

    fn product_parallel(left: (&[f32], View), right: (&[f32], View)) -> Vec<f32> {
        let term = Term { left, right, factor: 1.0 };
        assert!(pays(&[term]));
        sum_parallel(&[term], None)
    }

    /// Numbers of very different sizes and both signs.
    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 24) as f32
        };
        iter::repeat_with(|| (next() - 0.5) * 2f32.powi((next() * 12.0) as i32 - 6))
            .take(count)
            .collect()
    }

    fn at((elements, view): (&[f32], View), row: usize, column: usize) -> f64 {
        f64::from(elements[view.offset + row * view.row + column * view.column])
    }

    /// Errors of a sum in units of the sum of its terms' sizes: the largest, and the mean square's root.
    fn errors(found: &[f32], start: &[f32], terms: &[Term<'_>]) -> [f64; 2] {
        let columns = terms[0].right.1.columns;
        let (mut largest, mut squares) = (0.0f64, 0.0);
        for (place, &found) in found.iter().enumerate() {
            let (row, column) = (place / columns, place % columns);
            let products = terms.iter().flat_map(|term| {
                (0..term.left.1.columns).map(move |k| {
                    let product = at(term.left, row, k) * at(term.right, k, column);
                    f64::from(term.factor) * product
                })
            });
            let start = start.get(column).map(|&start| f64::from(start));
            let (sum, size) = products
                .chain(start)
                .fold((0.0, 0.0), |(sum, size), term: f64| (sum + term, size + term.abs()));
            let error = (f64::from(found) - sum).abs() / size;
            largest = largest.max(error);
            squares += error * error;
        }
        [largest, (squares / found.len() as f64).sqrt()]
    }

    #[test]
    fn a_number_is_the_sum_of_its_parts() {
        if !have() {
            return;
        }
        let numbers = [1.0, -1.0 / 3.0, 1e30, 1.25e-30, 16_777_215.0, -0.1, f32::EPSILON, 3.3e38];
        for number in numbers.into_iter().chain(random(1000, 1)) {
            // SAFETY: there is AMX, and so AVX-512; a vector of 512 bits is 16 of 32.
            let parts = unsafe {
                parts_of(_mm512_set1_ps(number))
                    .map(|part| std::mem::transmute::<__m512i, [u32; TILE]>(part)[0])
            };
            assert!(parts.iter().all(|part| part.trailing_zeros() >= 16), "{number:e}: {parts:x?}");
            let [first, second, third] = parts.map(f32::from_bits);
            assert!(second.abs() <= first.abs() / 256.0 && third.abs() <= first.abs() / 131_072.0);
            let sum = f64::from(first) + f64::from(second) + f64::from(third);
            assert_eq!(sum, f64::from(number), "{number:e}");
        }
    }

    #[test]
    fn a_product_is_nearer_to_the_exact_one_than_that_of_float32() {
        if !have() {
            return;
        }
        let (rows, columns, depth) = (131, 97, 1000);
        let (left, right) = (random(rows * depth, 1), random(depth * columns, 2));
        let (left, right) = (by_rows(&left, rows, depth), by_rows(&right, depth, columns));
        let terms = [Term { left, right, factor: 1.0 }];
        let found = errors(&product_parallel(left, right), &[], &terms);

        let mut float32 = vec![0.0f32; rows * columns];
        for (place, element) in float32.iter_mut().enumerate() {
            let (row, column) = (place / columns, place % columns);
            for k in 0..depth {
                let factors = [at(left, row, k) as f32, at(right, k, column) as f32];
                *element = factors[0].mul_add(factors[1], *element);
            }
        }
        let float32 = errors(&float32, &[], &terms);
        assert!(found[0] < float32[0] && found[1] < float32[1] / 2.0, "{found:?} {float32:?}");
        assert!(found[0] < 2e-7, "{found:?}");
    }

    /// Every order in which the factors' elements can lie, sizes that end within a tile, and a start.
    #[test]
    fn products_of_views_with_a_start() {
        if !have() {
            return;
        }
        for (rows, columns, depth) in
            [(1024, 64, 64), (65, 1001, 67), (81, 113, 797), (300, 500, 96)]
        {
            let (left, right) = (random(rows * depth + 7, 3), random(depth * columns + 9, 4));
            let lefts = either_order(7, rows, depth);
            let rights = either_order(9, depth, columns);
            for (l, r) in lefts.into_iter().flat_map(|l| rights.map(|r| (l, r))) {
                let (left, right) = ((left.as_slice(), l), (right.as_slice(), r));
                let product = product_parallel(left, right);
                let [largest, _] = errors(&product, &[], &[Term { left, right, factor: 1.0 }]);
                // Sums of parts and of blocks, each rounded to 24 bits.
                assert!(largest < 5e-7, "{largest:e}");

                let row = random(columns, 5);
                let (low, up) = (random(rows * 5, 6), random(5 * columns, 7));
                let (low, up) = (by_rows(&low, rows, 5), by_rows(&up, 5, columns));
                let terms = [
                    Term { left, right, factor: 0.5 },
                    Term { left: low, right: up, factor: -3.0 },
                ];
                let sum = sum_parallel(&terms, Some(&row));
                let [largest, _] = errors(&sum, &row, &terms);
                assert!(largest < 5e-7, "{largest:e}");

                // Within wider rows, of which the product is to leave the rest alone.
                let wide = columns + 3;
                let mut within = vec![2.0; rows * wide + 1];
                let view = View::new(1, rows, columns, wide);
                multiply((&mut within, view), left, right, 1.0);
                assert_eq!(within[0], 2.0);
                for (found, expected) in
                    within[1..].chunks_exact(wide).zip(product.chunks_exact(columns))
                {
                    assert!(found[..columns] == *expected && found[columns..] == [2.0; 3]);
                }
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        if !have() {
            return;
        }
        let (rows, columns, depth) = (330, 420, 500);
        let (left, right) = (random(rows * depth, 6), random(depth * columns, 7));
        let product =
            || product_parallel(by_rows(&left, rows, depth), by_rows(&right, depth, columns));
        let alone = product();
        for threads in [1, 2, 3, 7, 16] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(product) == alone, "{threads} threads");
        }
    }

    #[test]
    fn every_panel_is_one_tasks() {
        for (panels, threads) in [([24, 24], 2), ([1, 24], 4), ([24, 96], 16), ([2, 2], 32)] {
            let [down, across] = grid(panels, threads);
            assert_eq!(down * across, threads);
            for (count, parts) in [(panels[0], down), (panels[1], across)] {
                let all: Vec<usize> =
                    (0..parts).flat_map(|part| share(count, part, parts, 1)).collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
        }
        assert_eq!(grid([1, 24], 4), [1, 4]);
        assert_eq!(grid([24, 1], 4), [4, 1]);
    }

    #[test]
    fn what_is_infinite_is_not_made_finite() {
        if !have() {
            return;
        }
        let mut left = random(64 * 1024, 8);
        left[1024 * 3 + 5] = f32::INFINITY;
        left[1024 * 4 + 5] = f32::NAN;
        let right = random(1024 * 64, 9);
        let product = product_parallel(by_rows(&left, 64, 1024), by_rows(&right, 1024, 64));
        for (row, elements) in product.chunks_exact(64).enumerate() {
            let expected = row != 3 && row != 4;
            assert!(elements.iter().all(|element| element.is_finite() == expected), "row {row}");
        }
    }
}
