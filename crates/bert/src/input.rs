use burn::tensor::{Device, Int, Tensor, TensorData};
use nsmc_ops::Sequences;

/// The tokens of a batch as rows: its sequences laid end to end.
///
/// # Shapes
/// - all three tensors: `[rows]`, where `rows` is [`Sequences::rows`]
#[derive(Clone, Debug)]
pub struct BertInput {
    /// Token of each row.
    pub input_ids: Tensor<1, Int>,
    /// Position of each row within its sequence.
    pub position_ids: Tensor<1, Int>,
    /// Segment of each row: 0, or 1 for the second sequence of a pair.
    pub token_type_ids: Tensor<1, Int>,
    /// Where each sequence lies.
    pub sequences: Sequences,
}

impl BertInput {
    /// Single sequences, unpadded, all of the first segment.
    ///
    /// # Panics
    ///
    /// If a sequence is empty, or there is none.
    pub fn from_ids(sequences: &[Vec<u32>], device: &Device) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
        let types = vec![0; lengths.iter().sum()];
        Self::unpadded(&sequences.concat(), &types, lengths, device)
    }

    /// Sequences laid end to end without padding; `input_ids` and `token_type_ids` have one entry
    /// per token.
    ///
    /// # Panics
    ///
    /// If the lengths do not add up to the tokens, a sequence is empty, or there is none.
    pub fn unpadded(
        input_ids: &[u32],
        token_type_ids: &[u32],
        lengths: Vec<usize>,
        device: &Device,
    ) -> Self {
        let position_ids: Vec<u32> = lengths.iter().flat_map(|&length| 0..length as u32).collect();
        Self::new(
            int_tensor(input_ids.iter().copied(), device),
            int_tensor(position_ids.iter().copied(), device),
            int_tensor(token_type_ids.iter().copied(), device),
            Sequences::unpadded(lengths, device),
        )
    }

    /// Sequences padded to `width` tokens each, as transformers lays a batch out: row `i · width + j`
    /// is position `j` of sequence `i`. Gives the same results as [`Self::unpadded`].
    ///
    /// # Panics
    ///
    /// If the tokens are not `width` per sequence, or a length is 0 or beyond `width`.
    pub fn padded(
        input_ids: &[u32],
        token_type_ids: &[u32],
        lengths: Vec<usize>,
        width: usize,
        device: &Device,
    ) -> Self {
        let position_ids: Vec<u32> = lengths.iter().flat_map(|_| 0..width as u32).collect();
        Self::new(
            int_tensor(input_ids.iter().copied(), device),
            int_tensor(position_ids.iter().copied(), device),
            int_tensor(token_type_ids.iter().copied(), device),
            Sequences::padded(lengths, width, device),
        )
    }

    /// Rows that are tensors already.
    ///
    /// # Panics
    ///
    /// If there is not one token, position and segment per row.
    pub fn new(
        input_ids: Tensor<1, Int>,
        position_ids: Tensor<1, Int>,
        token_type_ids: Tensor<1, Int>,
        sequences: Sequences,
    ) -> Self {
        for ids in [&input_ids, &position_ids, &token_type_ids] {
            assert_eq!(ids.dims(), [sequences.rows()], "one id per row of the batch");
        }
        Self { input_ids, position_ids, token_type_ids, sequences }
    }
}

fn int_tensor(ids: impl Iterator<Item = u32>, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.map(|id| i32::try_from(id).expect("ids are below 2^31")).collect();
    let length = ids.len();
    Tensor::from_data(TensorData::new(ids, [length]), device)
}
