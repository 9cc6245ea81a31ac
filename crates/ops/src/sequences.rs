use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::storage::is_cpu;

/// How the sequences of a batch lie in its rows.
///
/// Everything in BERT but attention works on rows and needs no more. Attention's kernel for `flex` goes
/// from the first row of a sequence to its last. The composition for other backends pads: `select` with
/// [`Self::padded_rows`] gives `[batch_size, width]` positions, and `select` with
/// [`Self::row_positions`] takes the rows back.
#[derive(Clone, Debug)]
pub struct Sequences {
    lengths: Vec<usize>,
    width: usize,
    rows: usize,
    first_rows: Tensor<1, Int>,
    unpadded: Option<Unpadded>,
    key_mask: Option<Tensor<2>>,
}

#[derive(Clone, Debug)]
struct Unpadded {
    padded_rows: Tensor<1, Int>,
    row_positions: Tensor<1, Int>,
}

/// Which rows an encoder layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputRows {
    /// Every row.
    All,
    /// The first row of each sequence, `[CLS]`: all that a classifier reads of the last layer.
    First,
}

impl Sequences {
    /// Sequences of these lengths laid end to end.
    ///
    /// # Panics
    ///
    /// If a length is 0, or there is none.
    pub fn unpadded(lengths: Vec<usize>, device: &Device) -> Self {
        let width = check(&lengths);
        let first_rows = lengths.iter().scan(0, |row, length| {
            *row += length;
            Some((*row - length) as u32)
        });
        let rows = lengths.iter().sum();
        let even = rows == width * lengths.len();
        let unpadded = (!even).then(|| {
            // A padded position may hold any row: its key is masked and its query never taken back.
            let padded_rows =
                lengths.iter().zip(first_rows.clone()).flat_map(|(&length, first)| {
                    (0..width as u32).map(move |position| {
                        if position < length as u32 { first + position } else { 0 }
                    })
                });
            let row_positions = lengths.iter().enumerate().flat_map(|(sequence, &length)| {
                (0..length).map(move |position| (sequence * width + position) as u32)
            });
            Unpadded {
                padded_rows: int_tensor(padded_rows, device),
                row_positions: int_tensor(row_positions, device),
            }
        });
        Self {
            width,
            rows,
            first_rows: int_tensor(first_rows.clone(), device),
            unpadded,
            key_mask: key_mask(&lengths, width, device),
            lengths,
        }
    }

    /// Whether a device computes padded batches faster than unpadded ones.
    ///
    /// Between rows and positions lies `select`, whose gradient burn's kernels for GPUs add up one row
    /// after the other. There, to compute the padding as well costs less.
    pub fn prefer_padding(device: &Device) -> bool {
        !is_cpu(device)
    }

    /// Sequences of these lengths, each padded to `width` rows.
    ///
    /// # Panics
    ///
    /// If a length is 0 or beyond `width`, or there is none.
    pub fn padded(lengths: Vec<usize>, width: usize, device: &Device) -> Self {
        assert!(check(&lengths) <= width, "no sequence is longer than the padded width {width}");
        let first_rows = (0..lengths.len()).map(|sequence| (sequence * width) as u32);
        Self {
            width,
            rows: lengths.len() * width,
            first_rows: int_tensor(first_rows, device),
            unpadded: None,
            key_mask: key_mask(&lengths, width, device),
            lengths,
        }
    }

    /// Number of sequences.
    pub fn batch_size(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens of each sequence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Rows of the batch's hidden states.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Positions per sequence in attention: the longest sequence's, or the padded width.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row of each sequence's first token (`[CLS]`): `[batch_size]`.
    pub fn first_rows(&self) -> Tensor<1, Int> {
        self.first_rows.clone()
    }

    /// Whether every sequence has `width` rows, be they padded or of one length; otherwise the next one
    /// begins where it ends.
    pub(crate) fn rows_are_positions(&self) -> bool {
        self.unpadded.is_none()
    }

    /// For each of the `batch_size · width` positions its row; none where rows are positions
    /// already.
    pub(crate) fn padded_rows(&self) -> Option<Tensor<1, Int>> {
        self.unpadded.as_ref().map(|unpadded| unpadded.padded_rows.clone())
    }

    /// For each row its position; none where rows are positions already.
    pub(crate) fn row_positions(&self) -> Option<Tensor<1, Int>> {
        self.unpadded.as_ref().map(|unpadded| unpadded.row_positions.clone())
    }

    /// Added to the attention scores of each key: 0 for a token, `f32::MIN` for padding, as
    /// transformers does; none where nothing is padded. `[batch_size, width]`
    pub(crate) fn key_mask(&self) -> Option<Tensor<2>> {
        self.key_mask.clone()
    }
}

fn check(lengths: &[usize]) -> usize {
    assert!(!lengths.contains(&0), "a sequence has at least one token");
    *lengths.iter().max().expect("a batch has at least one sequence")
}

fn key_mask(lengths: &[usize], width: usize, device: &Device) -> Option<Tensor<2>> {
    if lengths.iter().all(|&length| length == width) {
        return None;
    }
    let mask: Vec<f32> = lengths
        .iter()
        .flat_map(|&length| {
            (0..width).map(move |position| if position < length { 0.0 } else { f32::MIN })
        })
        .collect();
    Some(Tensor::from_data(TensorData::new(mask, [lengths.len(), width]), device))
}

/// Ids of tokens, rows or classes as a tensor.
///
/// # Panics
///
/// If one is not below 2^31.
pub fn int_tensor(ids: impl Iterator<Item = u32>, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.map(|id| i32::try_from(id).expect("ids are below 2^31")).collect();
    let length = ids.len();
    Tensor::from_data(TensorData::new(ids, [length]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(tensor: Tensor<1, Int>) -> Vec<i64> {
        tensor.into_data().iter::<i64>().collect()
    }

    #[test]
    fn rows_go_to_their_positions_and_come_back() {
        let sequences = Sequences::unpadded(vec![2, 4, 1], &Device::flex());
        assert_eq!((sequences.rows(), sequences.width()), (7, 4));
        assert_eq!(ints(sequences.first_rows()), [0, 2, 6]);
        let padded = ints(sequences.padded_rows().unwrap());
        assert_eq!(padded, [0, 1, 0, 0, 2, 3, 4, 5, 6, 0, 0, 0]);
        let back: Vec<i64> = ints(sequences.row_positions().unwrap())
            .into_iter()
            .map(|position| padded[position as usize])
            .collect();
        assert_eq!(back, (0..7).collect::<Vec<_>>());
        let mask: Vec<f32> = sequences.key_mask().unwrap().into_data().try_to_vec().unwrap();
        assert_eq!(mask.iter().filter(|&&value| value == 0.0).count(), 7);
        assert_eq!(mask[2].to_bits(), f32::MIN.to_bits());
    }

    #[test]
    fn sequences_of_one_length_need_no_padding() {
        let sequences = Sequences::unpadded(vec![3, 3], &Device::flex());
        assert!(sequences.padded_rows().is_none() && sequences.key_mask().is_none());
        assert!(sequences.rows_are_positions());
    }

    #[test]
    #[should_panic(expected = "at least one token")]
    fn an_empty_sequence_is_refused() {
        Sequences::unpadded(vec![2, 0], &Device::flex());
    }
}
