use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::utils::truncation::truncate_encodings;
use tokenizers::{
    AddedToken, Encoding as Encoded, Model, NormalizerWrapper, PostProcessor, Token, Tokenizer,
    TruncationDirection, TruncationParams, TruncationStrategy,
};

use crate::DataError;
use crate::split::hex;
use crate::wordpiece::train_wordpiece;

/// transformers' `BertTokenizerFast`.
#[derive(Clone)]
pub struct BertTokenizer {
    tokenizer: Tokenizer,
    vocab: Vec<String>,
    settings: Settings,
    fingerprint: String,
}

/// What is added to a text and to a pair of texts.
const ADDED_TOKENS: [usize; 2] = [2, 3];

/// A text as the model takes it: `[CLS]` text `[SEP]`, and a second text and `[SEP]` for a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Tokens.
    pub input_ids: Vec<u32>,
    /// Segment of each token.
    pub token_type_ids: Vec<u32>,
    /// Whether the text was cut to fit.
    pub truncated: bool,
}

/// What of `tokenizer_config.json` decides the tokens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Settings {
    do_lower_case: bool,
    #[serde(default)]
    strip_accents: Option<bool>,
    #[serde(default = "yes")]
    tokenize_chinese_chars: bool,
    #[serde(default = "SpecialToken::unk")]
    unk_token: SpecialToken,
    #[serde(default = "SpecialToken::sep")]
    sep_token: SpecialToken,
    #[serde(default = "SpecialToken::pad")]
    pad_token: SpecialToken,
    #[serde(default = "SpecialToken::cls")]
    cls_token: SpecialToken,
    #[serde(default = "SpecialToken::mask")]
    mask_token: SpecialToken,
}

/// transformers' classes whose tokenizer is the one here, each also with `Fast` at its end.
const CLASSES: [&str; 3] = ["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"];

/// The class of transformers that takes `tokenizer.json` as it is.
const TAKEN_AS_IT_IS: &str = "PreTrainedTokenizerFast";

/// What `tokenizer_config.json` says that transformers puts above `tokenizer.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Declared {
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    truncation_side: Option<String>,
    padding_side: Option<String>,
    split_special_tokens: Option<bool>,
    added_tokens_decoder: Option<BTreeMap<String, DeclaredToken>>,
    #[serde(flatten)]
    named: NamedTokens,
}

/// What of the model's `config.json` is the tokenizer's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelConfig {
    tokenizer_class: Option<String>,
}

/// An added token and how it is found in a text.
#[derive(Deserialize)]
struct DeclaredToken {
    content: String,
    single_word: Option<bool>,
    lstrip: Option<bool>,
    rstrip: Option<bool>,
    normalized: Option<bool>,
}

/// Why a text that is cut or padded at its left has other tokens or places than here.
const CUT_RIGHT: &str = "a text that is too long is cut at its right here";
const PADDED_RIGHT: &str =
    "transformers would count positions from the padding on, and here there is none";

/// Special tokens by what they are for: in `tokenizer_config.json`, and in older folders in
/// `special_tokens_map.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedTokens {
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
    unk_token: Option<SpecialToken>,
    sep_token: Option<SpecialToken>,
    pad_token: Option<SpecialToken>,
    cls_token: Option<SpecialToken>,
    mask_token: Option<SpecialToken>,
    additional_special_tokens: Option<Vec<SpecialToken>>,
    extra_special_tokens: Option<ExtraTokens>,
}

/// Further special tokens, by names of their own or without.
#[derive(Deserialize)]
#[serde(untagged)]
enum ExtraTokens {
    Named(BTreeMap<String, SpecialToken>),
    Listed(Vec<SpecialToken>),
}

impl ExtraTokens {
    fn all(&self) -> Vec<&SpecialToken> {
        match self {
            Self::Named(named) => named.values().collect(),
            Self::Listed(listed) => listed.iter().collect(),
        }
    }
}

impl NamedTokens {
    fn all(&self) -> impl Iterator<Item = String> + '_ {
        let named = [
            &self.bos_token,
            &self.eos_token,
            &self.unk_token,
            &self.sep_token,
            &self.pad_token,
            &self.cls_token,
            &self.mask_token,
        ];
        let additional = self.additional_special_tokens.iter().flatten();
        let extra = self.extra_special_tokens.iter().flat_map(ExtraTokens::all);
        named.into_iter().flatten().chain(additional).chain(extra).map(|token| token.0.clone())
    }
}

impl Declared {
    /// The class of transformers that makes the tokenizer; none is that of the model, BERT's.
    fn check_class(
        &self,
        folder: &Path,
        config: &Path,
        whole: bool,
    ) -> Result<Option<String>, DataError> {
        let model = folder.join("config.json");
        let (path, class) = match &self.tokenizer_class {
            Some(class) => (config, Some(class.clone())),
            None => (&*model, read_json_if_there::<ModelConfig>(&model)?.tokenizer_class),
        };
        let is_known = |class: &str| {
            CLASSES.contains(&class.strip_suffix("Fast").unwrap_or(class))
                || whole && class == TAKEN_AS_IT_IS
        };
        match class {
            Some(class) if !is_known(&class) => {
                let message = format!(
                    "`tokenizer_class`: expected {}, with or without Fast at its end, or with a \
                     tokenizer.json {TAKEN_AS_IT_IS}, found {class}, whose tokens may be others: \
                     that class is not implemented",
                    CLASSES.join(", ")
                );
                Err(DataError::File { path: path.into(), message })
            }
            class => Ok(class),
        }
    }

    /// Refuses what changes the tokens or their places and is not implemented.
    fn check_options(&self, config: &Path) -> Result<(), DataError> {
        let split = self.split_special_tokens.map(|split| split.to_string());
        for (key, found, expected, reason) in [
            ("truncation_side", &self.truncation_side, "right", CUT_RIGHT),
            ("padding_side", &self.padding_side, "right", PADDED_RIGHT),
            (
                "split_special_tokens",
                &split,
                "false",
                "a special token in a text is that one token here",
            ),
        ] {
            if let Some(found) = found.as_ref().filter(|found| *found != expected) {
                let message = format!("`{key}`: expected {expected}, found {found}: {reason}");
                return Err(DataError::File { path: config.into(), message });
            }
        }
        Ok(())
    }
}

/// Whether a post-processor, or one within it, has a template for a single text that holds the second
/// of a pair: the library panics when it meets a text.
fn has_second_text(processor: &serde_json::Value) -> bool {
    let pieces = processor["single"].as_array().into_iter().flatten();
    let second = |piece: &serde_json::Value| piece["Sequence"]["id"].as_str() == Some("B");
    let inner = processor["processors"].as_array().into_iter().flatten();
    pieces.into_iter().any(second) || inner.into_iter().any(has_second_text)
}

fn yes() -> bool {
    true
}

/// A special token, written as a string or as an object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "SpecialTokenForm")]
struct SpecialToken(String);

#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialTokenForm {
    Text(String),
    Object { content: String },
}

impl From<SpecialTokenForm> for SpecialToken {
    fn from(form: SpecialTokenForm) -> Self {
        match form {
            SpecialTokenForm::Text(content) | SpecialTokenForm::Object { content } => Self(content),
        }
    }
}

impl SpecialToken {
    fn unk() -> Self {
        Self("[UNK]".into())
    }
    fn sep() -> Self {
        Self("[SEP]".into())
    }
    fn pad() -> Self {
        Self("[PAD]".into())
    }
    fn cls() -> Self {
        Self("[CLS]".into())
    }
    fn mask() -> Self {
        Self("[MASK]".into())
    }
}

impl Settings {
    /// Cased, nothing stripped: Hangul is never taken apart.
    fn cased() -> Self {
        Self {
            do_lower_case: false,
            strip_accents: None,
            tokenize_chinese_chars: true,
            unk_token: SpecialToken::unk(),
            sep_token: SpecialToken::sep(),
            pad_token: SpecialToken::pad(),
            cls_token: SpecialToken::cls(),
            mask_token: SpecialToken::mask(),
        }
    }

    fn normalizer(&self) -> BertNormalizer {
        BertNormalizer::new(
            true,
            self.tokenize_chinese_chars,
            self.strip_accents,
            self.do_lower_case,
        )
    }

    /// In the order in which a new vocabulary has them.
    fn special_tokens(&self) -> [&str; 5] {
        [&self.pad_token, &self.unk_token, &self.cls_token, &self.sep_token, &self.mask_token]
            .map(|token| token.0.as_str())
    }
}

impl BertTokenizer {
    /// The tokenizer of a folder in Hugging Face layout: `tokenizer.json`, or else `vocab.txt` with
    /// `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// A folder is refused from which transformers would make other tokens: because the config asks
    /// for another class or normalizer, because a text is cut or padded at its left, or because the
    /// config, `added_tokens.json` or `special_tokens_map.json` adds a token or finds one otherwise.
    pub fn from_pretrained(folder: &Path) -> Result<Self, DataError> {
        let config = folder.join("tokenizer_config.json");
        let [whole, vocab] = ["tokenizer.json", "vocab.txt"].map(|name| folder.join(name));
        let declared: Declared = read_json_if_there(&config)?;
        let class = declared.check_class(folder, &config, whole.is_file())?;
        declared.check_options(&config)?;
        let (mut tokenizer, file) = if whole.is_file() {
            (Self::read_json(&whole, &declared.named)?, &whole)
        } else if vocab.is_file() {
            (Self::from_vocab(&vocab, &config)?, &vocab)
        } else {
            return Err(DataError::File {
                path: folder.into(),
                message: "no tokenizer: expected tokenizer.json, or vocab.txt and \
                          tokenizer_config.json"
                    .into(),
            });
        };
        // Another class does not look at the switches.
        if class.as_deref() != Some(TAKEN_AS_IT_IS) {
            tokenizer.check_normalizer(file, &declared, &config)?;
        }
        let added = folder.join("added_tokens.json");
        let older: BTreeMap<String, u32> = read_json_if_there(&added)?;
        tokenizer.check_added(&added, older.into_keys())?;
        let newer = declared.added_tokens_decoder.iter().flat_map(BTreeMap::values);
        let newer = newer.map(|token| token.content.clone());
        tokenizer.check_added(&config, newer.chain(declared.named.all()))?;
        tokenizer.check_flags(file, &declared, &config)?;
        if declared.added_tokens_decoder.is_none() {
            let map = folder.join("special_tokens_map.json");
            let named: NamedTokens = read_json_if_there(&map)?;
            tokenizer.check_added(&map, named.all())?;
        }
        // Those of [CLS] and [SEP] were held against the post-processor.
        let settings = &mut tokenizer.settings;
        for (own, named) in [
            (&mut settings.unk_token, declared.named.unk_token),
            (&mut settings.pad_token, declared.named.pad_token),
            (&mut settings.mask_token, declared.named.mask_token),
        ] {
            if let Some(named) = named {
                *own = named;
            }
        }
        Ok(tokenizer)
    }

    /// transformers' `BertTokenizerFast` makes the normalizer of `tokenizer.json` anew where the
    /// config's switches are others, and a switch that is missing is another by its default: to
    /// lower-case, which takes Hangul syllables apart. Its base class does not.
    fn check_normalizer(
        &self,
        file: &Path,
        declared: &Declared,
        config: &Path,
    ) -> Result<(), DataError> {
        let Some(NormalizerWrapper::BertNormalizer(own)) = self.tokenizer.get_normalizer() else {
            return Ok(());
        };
        let lower = declared.do_lower_case.unwrap_or(true);
        for (key, found, default, as_what, own_key, expected) in [
            ("do_lower_case", declared.do_lower_case, true, "", "lowercase", own.lowercase),
            (
                "strip_accents",
                declared.strip_accents,
                lower,
                " as `do_lower_case`",
                "strip_accents",
                own.strip_accents.unwrap_or(own.lowercase),
            ),
            (
                "tokenize_chinese_chars",
                declared.tokenize_chinese_chars,
                true,
                "",
                "handle_chinese_chars",
                own.handle_chinese_chars,
            ),
        ] {
            if found.unwrap_or(default) != expected {
                let found = match found {
                    Some(found) => format!("is {found}"),
                    None => format!("is missing, which is {default} to transformers{as_what}"),
                };
                let message = format!(
                    "`{key}` {found}, but in {} `{own_key}` is {expected}, and transformers takes \
                     the former: correct the one that is wrong",
                    file.display()
                );
                return Err(DataError::File { path: config.into(), message });
            }
        }
        Ok(())
    }

    /// transformers finds an added token in the text before it splits that.
    fn check_added(
        &self,
        path: &Path,
        mut tokens: impl Iterator<Item = String>,
    ) -> Result<(), DataError> {
        let known = self.tokenizer.get_added_vocabulary().get_vocab();
        let Some(token) = tokens.find(|token| !known.contains_key(token)) else { return Ok(()) };
        let message = format!(
            "`{token}` is an added token, of which the tokenizer made here would make its pieces: \
             save the folder anew with transformers' fast tokenizer, whose tokenizer.json holds it"
        );
        Err(DataError::File { path: path.into(), message })
    }

    /// transformers finds an added token in a text as the config says, whatever `tokenizer.json` does.
    fn check_flags(
        &self,
        file: &Path,
        declared: &Declared,
        config: &Path,
    ) -> Result<(), DataError> {
        let added = self.tokenizer.get_added_tokens_decoder();
        for token in declared.added_tokens_decoder.iter().flat_map(BTreeMap::values) {
            let id = self.token_to_id(&token.content);
            let Some(own) = id.and_then(|id| added.get(&id)) else { continue };
            for (flag, found, expected) in [
                ("single_word", token.single_word, own.single_word),
                ("lstrip", token.lstrip, own.lstrip),
                ("rstrip", token.rstrip, own.rstrip),
                ("normalized", token.normalized, own.normalized),
            ] {
                if let Some(found) = found.filter(|&found| found != expected) {
                    let message = format!(
                        "`added_tokens_decoder`: `{flag}` of `{}` is {found}, but {expected} by {}: \
                         correct the one that is wrong",
                        token.content,
                        file.display()
                    );
                    return Err(DataError::File { path: config.into(), message });
                }
            }
        }
        Ok(())
    }

    /// A tokenizer from `tokenizer.json`, whose post-processor must add `[CLS]` and `[SEP]`. The lengths
    /// to which the file would cut and pad are not looked at.
    pub fn from_json(path: &Path) -> Result<Self, DataError> {
        Self::read_json(path, &NamedTokens::default())
    }

    /// The same where these two may be named otherwise.
    fn read_json(path: &Path, named: &NamedTokens) -> Result<Self, DataError> {
        let bytes = fs_err::read(path)?;
        // First, for the library panics where a decoder's text is no JSON.
        let json: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| DataError::File { path: path.into(), message: error.to_string() })?;
        if has_second_text(&json["post_processor"]) {
            let message = "the post-processor's template for a text asks for a second one";
            return Err(DataError::File { path: path.into(), message: message.into() });
        }
        for (key, reason) in [("truncation", CUT_RIGHT), ("padding", PADDED_RIGHT)] {
            if json[key]["direction"] == "Left" {
                let message = format!("`{key}.direction`: expected Right, found Left: {reason}");
                return Err(DataError::File { path: path.into(), message });
            }
        }
        let tokenizer = Tokenizer::from_bytes(&bytes).map_err(|reason| DataError::Tokenizer {
            context: path.display().to_string(),
            reason,
        })?;
        let normalizer = &json["normalizer"];
        let cased = Settings::cased();
        let settings = Settings {
            cls_token: named.cls_token.clone().unwrap_or(cased.cls_token),
            sep_token: named.sep_token.clone().unwrap_or(cased.sep_token),
            do_lower_case: normalizer["lowercase"].as_bool().unwrap_or(false),
            strip_accents: normalizer["strip_accents"].as_bool(),
            tokenize_chinese_chars: normalizer["handle_chinese_chars"].as_bool().unwrap_or(true),
            ..cased
        };
        Self::new(tokenizer, settings, path)
    }

    /// A tokenizer from `vocab.txt` and `tokenizer_config.json`.
    ///
    /// `do_lower_case` must be given: lower-casing also strips accents, which takes Hangul syllables
    /// apart, and transformers' default for a missing key is to do so.
    pub fn from_vocab(vocab: &Path, config: &Path) -> Result<Self, DataError> {
        let text = fs_err::read_to_string(config)?;
        let settings: Settings = serde_json::from_str(&text)
            .map_err(|error| DataError::File { path: config.into(), message: error.to_string() })?;
        // As Python reads lines: they end in any of these, and keep what else is at their ends. The
        // library's own reader takes all white space off.
        let text = fs_err::read_to_string(vocab)?.replace("\r\n", "\n").replace('\r', "\n");
        let model = WordPiece::read_bytes(&[])
            .and_then(|mut entries| {
                entries.extend(text.lines().map(str::to_owned).zip(0..));
                WordPiece::builder().vocab(entries).unk_token(settings.unk_token.0.clone()).build()
            })
            .map_err(|reason| DataError::Tokenizer {
                context: vocab.display().to_string(),
                reason,
            })?;
        Self::assemble(model, settings, vocab)
    }

    /// A cased tokenizer with a new WordPiece vocabulary of `vocab_size` entries, trained on
    /// `documents`.
    pub fn train<S: AsRef<str> + Sync>(
        documents: &[S],
        vocab_size: usize,
    ) -> Result<Self, DataError> {
        let settings = Settings::cased();
        let tokens = settings.special_tokens();
        let model =
            train_wordpiece(documents, vocab_size, &tokens, settings.normalizer()).map_err(
                |reason| DataError::Tokenizer { context: "training the vocabulary".into(), reason },
            )?;
        Self::assemble(model, settings, Path::new("the trained vocabulary"))
    }

    fn assemble(model: WordPiece, settings: Settings, path: &Path) -> Result<Self, DataError> {
        let id = |token: &SpecialToken| {
            model.token_to_id(&token.0).ok_or_else(|| DataError::File {
                path: path.into(),
                message: format!("the vocabulary has no `{}`", token.0),
            })
        };
        let (cls, sep) = (settings.cls_token.0.clone(), settings.sep_token.0.clone());
        let special = [&settings.cls_token, &settings.sep_token]
            .map(|token| Ok::<_, DataError>((token.0.clone(), id(token)?)));
        let [cls_entry, sep_entry] = special;
        for token in [&settings.pad_token, &settings.unk_token, &settings.mask_token] {
            id(token)?;
        }
        let template = TemplateProcessing::builder()
            .try_single(format!("{cls}:0 $A:0 {sep}:0"))
            .and_then(|builder| builder.try_pair(format!("{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1")))
            .map_err(|message| DataError::File { path: path.into(), message })?
            .special_tokens(vec![cls_entry?, sep_entry?])
            .build()
            .map_err(|error| DataError::File { path: path.into(), message: error.to_string() })?;
        let mut tokenizer = Tokenizer::new(model);
        tokenizer
            .with_normalizer(Some(settings.normalizer()))
            .with_pre_tokenizer(Some(BertPreTokenizer))
            .with_post_processor(Some(template));
        tokenizer.add_special_tokens(
            &settings.special_tokens().map(|token| AddedToken::from(token, true)),
        );
        Self::new(tokenizer, settings, path)
    }

    fn new(mut tokenizer: Tokenizer, settings: Settings, path: &Path) -> Result<Self, DataError> {
        let error = |reason| DataError::Tokenizer { context: path.display().to_string(), reason };
        tokenizer.with_padding(None).with_truncation(None).map_err(error)?;
        let mut vocab: Vec<(u32, String)> =
            tokenizer.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        vocab.sort_unstable();
        if vocab.iter().enumerate().any(|(place, (id, _))| place != *id as usize) {
            return Err(DataError::File {
                path: path.into(),
                message: "the vocabulary's ids are not 0, 1, 2, ...".into(),
            });
        }
        let processor = tokenizer.get_post_processor();
        let added = [false, true].map(|pair| processor.map_or(0, |p| p.added_tokens(pair)));
        if added != ADDED_TOKENS {
            let message = format!(
                "the post-processor adds {} tokens to a text and {} to a pair; expected [CLS] and \
                 [SEP], and another [SEP]",
                added[0], added[1]
            );
            return Err(DataError::File { path: path.into(), message });
        }
        let [cls, sep] = [&settings.cls_token, &settings.sep_token];
        // A text of one token, whatever the vocabulary.
        let text = || Encoded::from_tokens(vec![Token::new(0, String::new(), (0, 0))], 0);
        for (second, expected, last_type) in
            [(None, [cls, sep].as_slice(), 0), (Some(text()), &[cls, sep, sep], 1)]
        {
            let encoding = tokenizer.post_process(text(), second, true).map_err(error)?;
            let special = encoding.get_special_tokens_mask().iter().map(|&mask| mask == 1);
            let added = encoding.get_ids().iter().zip(special).filter(|(_, special)| *special);
            let added: Vec<Option<u32>> = added.map(|(&id, _)| Some(id)).collect();
            let tokens = expected.iter().map(|token| tokenizer.token_to_id(&token.0));
            // A batch of texts is all of the type 0, and the model has no more than two.
            let types = encoding.get_type_ids();
            if !tokens.eq(added.iter().copied()) || types.iter().any(|&id| id > last_type) {
                let message = format!(
                    "the post-processor adds the ids {:?}, and gives the types {types:?}; expected \
                     the ids of {}, and no type above {last_type}",
                    added.into_iter().flatten().collect::<Vec<_>>(),
                    expected.iter().map(|token| token.0.as_str()).collect::<Vec<_>>().join(" ")
                );
                return Err(DataError::File { path: path.into(), message });
            }
        }
        let json = tokenizer.to_string(false).map_err(error)?;
        let fingerprint = hex(&Sha256::digest(json.as_bytes()));
        let vocab = vocab.into_iter().map(|(_, token)| token).collect();
        Ok(Self { tokenizer, vocab, settings, fingerprint })
    }

    /// Number of entries, the special tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The entries; an entry's place is its id.
    pub fn vocab(&self) -> &[String] {
        &self.vocab
    }

    /// The id of an entry.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// sha256 over everything that decides the tokens.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Encodes texts in parallel, each cut to `max_length` tokens; `[CLS]` and `[SEP]` always stay.
    pub fn encode<S: AsRef<str> + Sync>(
        &self,
        documents: &[S],
        max_length: usize,
    ) -> Result<Vec<Encoding>, DataError> {
        let tokenizer = self.truncating(max_length)?;
        documents
            .par_iter()
            .map(|document| {
                let encoding = tokenizer.encode(document.as_ref(), true).map_err(encode_error)?;
                Ok(Encoding::from(encoding))
            })
            .collect()
    }

    /// Encodes a pair of texts, the longer cut first.
    pub fn encode_pair(
        &self,
        first: &str,
        second: &str,
        max_length: usize,
    ) -> Result<Encoding, DataError> {
        check_max_length(max_length)?;
        let part = |text: &str| self.tokenizer.encode(text, false);
        let longest_first =
            TruncationParams { max_length: max_length - ADDED_TOKENS[1], ..truncation(max_length) };
        // The library pairs each piece that was cut off of one text with each of the other's: of a
        // text of 4 KB that takes 600 MB.
        let encode = || {
            let parts = (part(first)?, Some(part(second)?));
            let (mut first, mut second) = truncate_encodings(parts.0, parts.1, &longest_first)?;
            let mut truncated = !first.take_overflowing().is_empty();
            if let Some(second) = &mut second {
                truncated |= !second.take_overflowing().is_empty();
            }
            let encoding = self.tokenizer.post_process(first, second, true)?;
            Ok(Encoding { truncated, ..encoding.into() })
        };
        encode().map_err(encode_error)
    }

    fn truncating(&self, max_length: usize) -> Result<Tokenizer, DataError> {
        check_max_length(max_length)?;
        let mut tokenizer = self.tokenizer.clone();
        tokenizer.with_truncation(Some(truncation(max_length))).map_err(encode_error)?;
        Ok(tokenizer)
    }

    /// Writes `tokenizer.json`, `vocab.txt` and `tokenizer_config.json`, from which transformers makes
    /// the same tokenizer.
    pub fn save(&self, folder: &Path, max_length: usize) -> Result<(), DataError> {
        fs_err::create_dir_all(folder)?;
        let context = || folder.join("tokenizer.json").display().to_string();
        let json = self
            .tokenizer
            .to_string(true)
            .map_err(|reason| DataError::Tokenizer { context: context(), reason })?;
        fs_err::write(folder.join("tokenizer.json"), json)?;
        fs_err::write(folder.join("vocab.txt"), self.vocab.join("\n") + "\n")?;
        let [pad, unk, cls, sep, mask] = self.settings.special_tokens();
        // transformers' class for BERT needs a normalizer of its own.
        let bert =
            matches!(self.tokenizer.get_normalizer(), Some(NormalizerWrapper::BertNormalizer(_)));
        let config = serde_json::json!({
            "tokenizer_class": if bert { "BertTokenizer" } else { TAKEN_AS_IT_IS },
            "do_lower_case": self.settings.do_lower_case,
            "strip_accents": self.settings.strip_accents,
            "tokenize_chinese_chars": self.settings.tokenize_chinese_chars,
            "model_max_length": max_length,
            "pad_token": pad,
            "unk_token": unk,
            "cls_token": cls,
            "sep_token": sep,
            "mask_token": mask,
        });
        let text =
            serde_json::to_string_pretty(&config).expect("a config is representable in JSON");
        Ok(fs_err::write(folder.join("tokenizer_config.json"), text + "\n")?)
    }
}

impl From<Encoded> for Encoding {
    fn from(encoding: Encoded) -> Self {
        Self {
            input_ids: encoding.get_ids().to_vec(),
            token_type_ids: encoding.get_type_ids().to_vec(),
            truncated: !encoding.get_overflowing().is_empty(),
        }
    }
}

fn read_json_if_there<T: Default + DeserializeOwned>(path: &Path) -> Result<T, DataError> {
    if !path.is_file() {
        return Ok(T::default());
    }
    serde_json::from_str(&fs_err::read_to_string(path)?)
        .map_err(|error| DataError::File { path: path.into(), message: error.to_string() })
}

/// The library subtracts the tokens that it adds without looking.
fn check_max_length(max_length: usize) -> Result<(), DataError> {
    if max_length >= ADDED_TOKENS[1] {
        return Ok(());
    }
    let message = format!("`max_length`: expected a number from 3, found {max_length}");
    Err(encode_error(message.into()))
}

fn truncation(max_length: usize) -> TruncationParams {
    TruncationParams {
        max_length,
        strategy: TruncationStrategy::LongestFirst,
        stride: 0,
        direction: TruncationDirection::Right,
    }
}

fn encode_error(reason: tokenizers::Error) -> DataError {
    DataError::Tokenizer { context: "encoding".into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: [&str; 4] = [
        "정말 재미있는 영화",
        "재미없는 영화 정말 재미없다",
        "영화가 재미있다!! Good",
        "최고 최고 good",
    ];

    #[test]
    fn the_same_documents_train_the_same_vocabulary_in_any_order() {
        let vocab = BertTokenizer::train(&DOCUMENTS, 80).unwrap();
        let mut reversed = DOCUMENTS;
        reversed.reverse();
        for _ in 0..5 {
            let again = BertTokenizer::train(&reversed, 80).unwrap();
            assert_eq!(again.vocab(), vocab.vocab());
            assert_eq!(again.fingerprint(), vocab.fingerprint());
        }
        assert_eq!(vocab.vocab()[..5], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
        assert!(vocab.token_to_id("영화").is_some(), "{:?}", vocab.vocab());
        // No syllable is taken apart.
        assert!(!vocab.vocab().iter().any(|token| token.contains(['ㅇ', '\u{110b}'])));
    }

    #[test]
    fn a_saved_tokenizer_gives_the_same_tokens_from_either_file() {
        let tokenizer = BertTokenizer::train(&DOCUMENTS, 80).unwrap();
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path(), 128).unwrap();
        let texts = ["재미있는 [MASK] 영화!", "모르는글자뷁 good"];
        let expected = tokenizer.encode(&texts, 16).unwrap();
        let whole = BertTokenizer::from_pretrained(folder.path()).unwrap();
        assert_eq!(whole.encode(&texts, 16).unwrap(), expected);
        fs_err::remove_file(folder.path().join("tokenizer.json")).unwrap();
        let parts = BertTokenizer::from_pretrained(folder.path()).unwrap();
        assert_eq!(parts.encode(&texts, 16).unwrap(), expected);
        let mask = parts.token_to_id("[MASK]").unwrap();
        assert!(expected[0].input_ids.contains(&mask));
    }

    #[test]
    fn special_tokens_of_other_names_are_saved_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let vocab = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "정말", "영화", "##가"];
        fs_err::write(path("vocab.txt"), vocab.join("\n") + "\n").unwrap();
        let config = serde_json::json!({
            "do_lower_case": false,
            "tokenizer_class": "BertTokenizer",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "cls_token": "<s>",
            "sep_token": "</s>",
            "mask_token": "<mask>",
        });
        fs_err::write(path("tokenizer_config.json"), config.to_string()).unwrap();
        let tokenizer = BertTokenizer::from_pretrained(folder.path()).unwrap();
        let ids = |tokenizer: &BertTokenizer| {
            tokenizer.encode(&["정말 <mask> 영화가 없다"], 16).unwrap().remove(0).input_ids
        };
        assert_eq!(ids(&tokenizer), [2, 5, 4, 6, 7, 1, 3]);
        tokenizer.save(&path("saved"), 16).unwrap();
        let saved = BertTokenizer::from_pretrained(&path("saved")).unwrap();
        assert_eq!(ids(&saved), ids(&tokenizer));
        assert_eq!(saved.settings, tokenizer.settings);
        // Nothing but the config says what the post-processor's are called.
        let error =
            BertTokenizer::from_json(&path("saved/tokenizer.json")).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("expected the ids of [CLS] [SEP]"), "{error}");
    }

    #[test]
    fn truncation_keeps_the_separator() {
        let tokenizer = BertTokenizer::train(&DOCUMENTS, 80).unwrap();
        let long = "영화 ".repeat(50);
        let encoding = tokenizer.encode(&[long.as_str(), ""], 9).unwrap();
        let sep = tokenizer.token_to_id("[SEP]").unwrap();
        assert_eq!((encoding[0].input_ids.len(), encoding[0].truncated), (9, true));
        assert_eq!(encoding[0].input_ids[8], sep);
        assert_eq!((encoding[1].input_ids.len(), encoding[1].truncated), (2, false));
    }

    #[test]
    fn a_tokenizer_without_what_it_needs_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |files: &[(&str, &str)], expected: &str| {
            for (name, text) in files {
                fs_err::write(folder.path().join(name), text).unwrap();
            }
            let Err(error) = BertTokenizer::from_pretrained(folder.path()) else {
                panic!("{files:?} were read")
            };
            assert!(error.to_string().contains(expected), "{expected} is not in {error}");
        };
        refused(&[], "no tokenizer: expected tokenizer.json");
        refused(&[("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[MASK]\n")], "tokenizer_config.json");
        refused(&[("tokenizer_config.json", "{}")], "do_lower_case");
        refused(
            &[("tokenizer_config.json", "{\"do_lower_case\": false}")],
            "the vocabulary has no `[SEP]`",
        );
        refused(&[("tokenizer.json", "{\"version\": \"1.0\"")], "tokenizer.json");
        let decoder = "{\"version\": \"1.0\", \"decoder\": {\"type\": \"WordPiece\", 5}}";
        refused(&[("tokenizer.json", decoder)], "key must be a string");
    }

    #[test]
    fn a_folder_for_another_class_of_transformers_is_refused() {
        let cased =
            |class: &str| format!(r#"{{"do_lower_case": false, "tokenizer_class": {class}}}"#);
        let read = |json: &[(&str, serde_json::Value)], own: &str, model: &str| {
            let own = ("tokenizer_config.json", &*cased(own));
            changed(json, &[own, ("config.json", &format!(r#"{{"tokenizer_class": {model}}}"#))])
        };
        for json in [&[][..], &[("lowercase", false.into())]] {
            for class in ["KoBertTokenizer", "BertJapaneseTokenizer", "BertFast"] {
                let class = format!("\"{class}\"");
                for (own, model, file) in [
                    (&*class, "null", "tokenizer_config.json"),
                    ("null", &*class, "config.json"),
                    (&*class, "\"BertTokenizer\"", "tokenizer_config.json"),
                ] {
                    let message = read(json, own, model).unwrap_err();
                    let expected = format!("/{file}: `tokenizer_class`: expected BertTokenizer, ");
                    assert!(message.contains(&expected), "{message}");
                    assert!(message.contains(&format!("found {}", class.trim_matches('"'))));
                }
            }
            for class in ["BertTokenizerFast", "ElectraTokenizer", "DistilBertTokenizerFast"] {
                let class = format!("\"{class}\"");
                read(json, &class, "\"KoBertTokenizer\"").unwrap();
                read(json, "null", &class).unwrap();
            }
            // It makes no tokenizer of a vocabulary.
            let generic = read(json, "null", "\"PreTrainedTokenizerFast\"");
            assert_eq!(generic.is_ok(), !json.is_empty(), "{generic:?}");
        }
    }

    #[test]
    fn a_text_that_transformers_would_cut_or_pad_at_its_left_is_refused() {
        for key in ["truncation", "padding"] {
            let read = |side: &str| {
                let config = format!(r#"{{"do_lower_case": false, "{key}_side": "{side}"}}"#);
                changed(&[], &[("tokenizer_config.json", &config)])
            };
            read("right").unwrap();
            let message = read("left").unwrap_err();
            let expected = format!("`{key}_side`: expected right, found left");
            assert!(message.contains(&expected), "{message}");
        }
        let split = r#"{"do_lower_case": false, "split_special_tokens": true}"#;
        let message = changed(&[], &[("tokenizer_config.json", split)]).unwrap_err();
        assert!(
            message.contains("`split_special_tokens`: expected false, found true"),
            "{message}"
        );

        let folder = tempfile::tempdir().unwrap();
        BertTokenizer::train(&DOCUMENTS, 80).unwrap().save(folder.path(), 128).unwrap();
        let path = folder.path().join("tokenizer.json");
        let mut whole: serde_json::Value =
            serde_json::from_str(&fs_err::read_to_string(&path).unwrap()).unwrap();
        for (key, mut value) in [
            (
                "truncation",
                serde_json::json!({"max_length": 8, "strategy": "LongestFirst", "stride": 0}),
            ),
            (
                "padding",
                serde_json::json!({
                    "strategy": "BatchLongest", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]",
                }),
            ),
        ] {
            let mut read = |side: &str| {
                value["direction"] = side.into();
                whole[key] = value.clone();
                fs_err::write(&path, whole.to_string()).unwrap();
                BertTokenizer::from_pretrained(folder.path()).map(|_| ())
            };
            let message = read("Left").unwrap_err().to_string();
            let expected = format!("tokenizer.json: `{key}.direction`: expected Right, found Left");
            assert!(message.contains(&expected), "{message}");
            read("Right").unwrap();
        }
    }

    #[test]
    fn an_added_token_that_the_config_finds_otherwise_is_refused() {
        for json in [&[][..], &[("lowercase", false.into())]] {
            let read = |flag: &str, value: bool| {
                let token =
                    format!(r#"{{"content": "[MASK]", "special": true, "{flag}": {value}}}"#);
                let config = format!(
                    r#"{{"do_lower_case": false, "added_tokens_decoder": {{"4": {token}}}}}"#
                );
                changed(json, &[("tokenizer_config.json", &config)])
            };
            for flag in ["single_word", "lstrip", "rstrip", "normalized"] {
                read(flag, false).unwrap();
                let message = read(flag, true).unwrap_err();
                let expected = format!("`{flag}` of `[MASK]` is true, but false by ");
                assert!(message.contains(&expected), "{message}");
            }
        }
    }

    #[test]
    fn a_vocabulary_is_read_as_python_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let [vocab, config] =
            ["vocab.txt", "tokenizer_config.json"].map(|name| folder.path().join(name));
        fs_err::write(&config, r#"{"do_lower_case": false}"#).unwrap();
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        // `open` takes each of these for the end of a line, and nothing else off it.
        let rest = ["b", "b\u{a0}", "b\u{3000}", "c ", "d\t", "", "e\u{2028}f"];
        let entries = [&special[..], &rest[..]].concat();
        for end in ["\n", "\r\n", "\r"] {
            for last in [end, ""] {
                fs_err::write(&vocab, entries.join(end) + last).unwrap();
                let tokenizer = BertTokenizer::from_pretrained(folder.path()).unwrap();
                assert_eq!(tokenizer.vocab(), entries, "{end:?}");
            }
        }
    }

    /// A saved tokenizer whose files are changed, and how it is read.
    fn changed(json: &[(&str, serde_json::Value)], files: &[(&str, &str)]) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        BertTokenizer::train(&DOCUMENTS, 80).unwrap().save(folder.path(), 128).unwrap();
        let path = folder.path().join("tokenizer.json");
        if json.is_empty() {
            fs_err::remove_file(&path).unwrap();
        } else {
            let mut whole: serde_json::Value =
                serde_json::from_str(&fs_err::read_to_string(&path).unwrap()).unwrap();
            for (key, value) in json {
                whole["normalizer"][key] = value.clone();
            }
            fs_err::write(&path, whole.to_string()).unwrap();
        }
        for (name, text) in files {
            fs_err::write(folder.path().join(name), text).unwrap();
        }
        BertTokenizer::from_pretrained(folder.path()).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_config_by_which_transformers_makes_other_tokens_is_refused() {
        let (lower, accents) = ("lowercase", "strip_accents");
        let chinese = ("handle_chinese_chars", false.into());
        for (normalizer, config, refused) in [
            // What an unset `strip_accents` comes to, not how it is written.
            ((lower, false.into()), r#""do_lower_case": false"#, None),
            ((accents, false.into()), r#""do_lower_case": false, "strip_accents": null"#, None),
            ((accents, false.into()), r#""do_lower_case": false"#, None),
            ((lower, true.into()), r#""do_lower_case": true, "strip_accents": true"#, None),
            ((lower, true.into()), "", None),
            (
                (lower, false.into()),
                "",
                Some("`do_lower_case` is missing, which is true to transformers, but in"),
            ),
            (
                (lower, false.into()),
                r#""tokenizer_class": "BertTokenizerFast", "strip_accents": false"#,
                Some("`do_lower_case` is missing, which is true to transformers, but in"),
            ),
            ((lower, false.into()), r#""tokenizer_class": "PreTrainedTokenizerFast""#, None),
            (
                (lower, false.into()),
                r#""do_lower_case": true, "tokenizer_class": "PreTrainedTokenizerFast""#,
                None,
            ),
            (
                (lower, false.into()),
                r#""do_lower_case": true"#,
                Some("`do_lower_case` is true, but in"),
            ),
            (
                (lower, true.into()),
                r#""do_lower_case": false, "tokenizer_class": "BertTokenizerFast""#,
                Some("`do_lower_case` is false, but in"),
            ),
            (
                (accents, true.into()),
                r#""do_lower_case": false, "strip_accents": null"#,
                Some(
                    "`strip_accents` is missing, which is false to transformers as `do_lower_case`, \
                     but in",
                ),
            ),
            (
                (lower, true.into()),
                r#""do_lower_case": true, "strip_accents": false"#,
                Some("`strip_accents` is false, but in"),
            ),
            (chinese.clone(), r#""do_lower_case": false, "tokenize_chinese_chars": false"#, None),
            (
                chinese.clone(),
                r#""do_lower_case": false, "tokenize_chinese_chars": true"#,
                Some("`tokenize_chinese_chars` is true, but in"),
            ),
            (
                chinese,
                r#""do_lower_case": false"#,
                Some("`tokenize_chinese_chars` is missing, which is true to transformers, but in"),
            ),
        ] {
            let text = format!("{{{config}}}");
            let read = changed(&[normalizer], &[("tokenizer_config.json", &text)]);
            match (read, refused) {
                (Ok(()), None) => {}
                (Err(message), Some(expected)) => assert!(
                    message.contains(&format!("tokenizer_config.json: {expected}"))
                        && message.contains("tokenizer.json `"),
                    "{message}"
                ),
                (read, _) => panic!("{config}: {read:?}"),
            }
        }
    }

    #[test]
    fn a_template_that_the_library_would_panic_at_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        BertTokenizer::train(&DOCUMENTS, 80).unwrap().save(folder.path(), 128).unwrap();
        let path = folder.path().join("tokenizer.json");
        let whole: serde_json::Value =
            serde_json::from_str(&fs_err::read_to_string(&path).unwrap()).unwrap();
        let mut wrong = whole["post_processor"].clone();
        let pieces = wrong["single"].as_array_mut().unwrap();
        pieces.iter_mut().find(|piece| piece["Sequence"].is_object()).unwrap()["Sequence"]["id"] =
            "B".into();
        let within = serde_json::json!({"type": "Sequence", "processors": [wrong.clone()]});
        for processor in [wrong, within] {
            let mut changed = whole.clone();
            changed["post_processor"] = processor;
            fs_err::write(&path, changed.to_string()).unwrap();
            let error = BertTokenizer::from_json(&path).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("asks for a second one"), "{error}");
        }
    }

    #[test]
    fn a_tokenizer_without_a_normalizer_is_saved_as_what_transformers_takes_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        BertTokenizer::train(&DOCUMENTS, 80).unwrap().save(&from, 128).unwrap();
        let json = |path: &Path| -> serde_json::Value {
            serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
        };
        let mut whole = json(&from.join("tokenizer.json"));
        whole["normalizer"] = serde_json::Value::Null;
        fs_err::write(from.join("tokenizer.json"), whole.to_string()).unwrap();
        let config = r#"{"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "[UNK]"}"#;
        fs_err::write(from.join("tokenizer_config.json"), config).unwrap();
        BertTokenizer::from_pretrained(&from).unwrap().save(&to, 128).unwrap();
        let saved = json(&to.join("tokenizer_config.json"));
        assert_eq!(saved["tokenizer_class"], "PreTrainedTokenizerFast");
        assert_eq!((&saved["mask_token"], &saved["cls_token"]), (&"[UNK]".into(), &"[CLS]".into()));
    }

    #[test]
    fn an_added_token_that_would_be_split_is_refused() {
        let decoder = |token: &str| {
            format!(
                r#"{{"do_lower_case": false, "added_tokens_decoder": {{"5": {{"content": "{token}"}}}}}}"#
            )
        };
        let additional = r#"{"do_lower_case": false, "additional_special_tokens": ["<user>"]}"#;
        let named = r#"{"do_lower_case": false, "bos_token": {"content": "<user>"}}"#;
        for json in [&[][..], &[("lowercase", false.into())]] {
            for (name, text, token) in [
                ("added_tokens.json", r#"{"<user>": 80}"#, "<user>"),
                // An entry of the vocabulary, which would be whole within a word, too.
                ("added_tokens.json", r#"{"영화": 20}"#, "영화"),
                ("tokenizer_config.json", &decoder("<user>"), "<user>"),
                ("tokenizer_config.json", additional, "<user>"),
                ("tokenizer_config.json", named, "<user>"),
                ("special_tokens_map.json", r#"{"eos_token": "<user>"}"#, "<user>"),
                ("special_tokens_map.json", r#"{"additional_special_tokens": ["영화"]}"#, "영화"),
            ] {
                let message = changed(json, &[(name, text)]).unwrap_err();
                assert!(message.contains(&format!("{name}: `{token}` is an added")), "{message}");
                assert!(message.contains("save the folder anew"), "{message}");
            }
            changed(json, &[("added_tokens.json", r#"{"[MASK]": 4}"#)]).unwrap();
            changed(json, &[("tokenizer_config.json", &decoder("[SEP]"))]).unwrap();
            changed(json, &[("special_tokens_map.json", r#"{"cls_token": "[CLS]"}"#)]).unwrap();
            // Where the config has them all, transformers does not look.
            let map = ("special_tokens_map.json", r#"{"eos_token": "<user>"}"#);
            changed(json, &[("tokenizer_config.json", &decoder("[SEP]")), map]).unwrap();
        }
    }

    #[test]
    fn a_pair_is_cut_as_the_library_cuts_it_and_a_long_text_takes_no_memory() {
        let tokenizer = BertTokenizer::train(&DOCUMENTS, 80).unwrap();
        let texts = ["", "영화", "재미있는 영화", "정말 재미있는 영화 영화 영화"];
        for (first, second) in texts.iter().flat_map(|first| texts.map(|second| (*first, second))) {
            for max_length in [3, 4, 7, 8, 100] {
                let library = tokenizer.truncating(max_length).unwrap();
                let expected = Encoding::from(library.encode((first, second), true).unwrap());
                let found = tokenizer.encode_pair(first, second, max_length).unwrap();
                assert_eq!(found, expected, "{first}, {second}, {max_length}");
            }
        }
        // Both at once would be a million pairs of pieces.
        let long = "영화 ".repeat(10_000);
        assert_eq!(tokenizer.encode_pair(&long, &long, 16).unwrap().input_ids.len(), 16);
    }

    #[test]
    fn a_tokenizer_that_adds_other_tokens_than_berts_is_refused() {
        type Change = fn(&mut serde_json::Value);

        let folder = tempfile::tempdir().unwrap();
        let tokenizer = BertTokenizer::train(&DOCUMENTS, 80).unwrap();
        tokenizer.save(folder.path(), 128).unwrap();
        let path = folder.path().join("tokenizer.json");
        let json: serde_json::Value =
            serde_json::from_str(&fs_err::read_to_string(&path).unwrap()).unwrap();
        let special = json["post_processor"]["single"][0].clone();
        assert!(special["SpecialToken"].is_object());
        // More of them than tokens are asked for: the library would cut at 2^64 - 4.
        let many: Vec<_> = (0..20).map(|_| special.clone()).collect();
        for (single, expected) in [
            (serde_json::json!(many), "adds 20 tokens to a text"),
            (serde_json::json!([json["post_processor"]["single"][1]]), "adds 0 tokens to a text"),
        ] {
            let mut json = json.clone();
            json["post_processor"]["single"] = single;
            fs_err::write(&path, json.to_string()).unwrap();
            let Err(error) = BertTokenizer::from_json(&path) else { panic!("it was read") };
            assert!(error.to_string().contains(expected), "{error}");
        }
        // Ids that the vocabulary does not have, and a segment that the model does not have.
        let changes: [(Change, &str); 4] = [
            (|post| post["special_tokens"]["[SEP]"]["ids"] = [4000].into(), "the ids [2, 4000]"),
            (|post| post["special_tokens"]["[CLS]"]["ids"] = [3].into(), "the ids [3, 3]"),
            (|post| post["pair"][4]["SpecialToken"]["type_id"] = 7.into(), "[0, 0, 0, 1, 7]"),
            // A review's tokens are all of the first segment.
            (|post| post["single"][1]["Sequence"]["type_id"] = 1.into(), "the types [0, 1, 0]"),
        ];
        for (change, expected) in changes {
            let mut json = json.clone();
            change(&mut json["post_processor"]);
            fs_err::write(&path, json.to_string()).unwrap();
            let Err(error) = BertTokenizer::from_json(&path) else { panic!("it was read") };
            assert!(error.to_string().contains(expected), "{error}");
        }
        let error = tokenizer.encode(&["영화"], 2).unwrap_err().to_string();
        assert!(error.contains("`max_length`: expected a number from 3, found 2"), "{error}");
    }
}
