use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Result, Trainer,
};

/// Trains a WordPiece vocabulary of `vocab_size` entries, `special_tokens` first.
///
/// The alphabet is the most frequent quarter of `vocab_size` characters. The same documents give the
/// same vocabulary, in any order.
pub(crate) fn train_wordpiece<S: AsRef<str> + Sync>(
    documents: &[S],
    vocab_size: usize,
    special_tokens: &[&str],
    normalizer: BertNormalizer,
) -> Result<WordPiece> {
    let words = count_words(documents, normalizer)?;
    let mut characters: HashMap<char, u64> = HashMap::new();
    let mut continuing: HashSet<char> = HashSet::new();
    for (word, count) in &words {
        for (place, character) in word.chars().enumerate() {
            *characters.entry(character).or_default() += count;
            if place > 0 {
                continuing.insert(character);
            }
        }
    }
    let mut alphabet: Vec<(char, u64)> = characters.into_iter().collect();
    alphabet.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    alphabet.truncate(vocab_size / 4);
    let mut alphabet: Vec<char> = alphabet.into_iter().map(|(character, _)| character).collect();
    alphabet.sort_unstable();

    // The trainer numbers `##x` entries as it meets them in a randomly keyed map, and breaks ties
    // between merges by number. Entries given as special tokens are numbered in the order given.
    let reserved = special_tokens
        .iter()
        .map(|&token| token.to_owned())
        .chain(alphabet.iter().map(char::to_string))
        .chain(alphabet.iter().filter(|c| continuing.contains(c)).map(|c| format!("##{c}")));
    let mut trainer = WordPieceTrainer::builder()
        .show_progress(false)
        .min_frequency(2)
        .vocab_size(vocab_size)
        .special_tokens(reserved.map(|token| AddedToken::from(token, true)).collect())
        .limit_alphabet(alphabet.len())
        .initial_alphabet(alphabet.into_iter().collect())
        .build();
    trainer.feed(documents.iter(), |document| split_words(document, normalizer))?;
    let mut model = WordPiece::default();
    trainer.train(&mut model)?;
    Ok(model)
}

fn count_words<S: AsRef<str> + Sync>(
    documents: &[S],
    normalizer: BertNormalizer,
) -> Result<HashMap<String, u64>> {
    documents
        .par_iter()
        .map(|document| split_words(document.as_ref(), normalizer))
        .try_fold(HashMap::new, |mut counts: HashMap<String, u64>, words| {
            for word in words? {
                *counts.entry(word).or_default() += 1;
            }
            Ok(counts)
        })
        .try_reduce(HashMap::new, |mut all, counts| {
            for (word, count) in counts {
                *all.entry(word).or_default() += count;
            }
            Ok(all)
        })
}

fn split_words(document: &str, normalizer: BertNormalizer) -> Result<Vec<String>> {
    let mut normalized = NormalizedString::from(document);
    normalizer.normalize(&mut normalized)?;
    let mut words = PreTokenizedString::from(normalized);
    BertPreTokenizer.pre_tokenize(&mut words)?;
    let splits = words.get_splits(OffsetReferential::Original, OffsetType::None);
    Ok(splits.into_iter().map(|(word, ..)| word.to_owned()).collect())
}
