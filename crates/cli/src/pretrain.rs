use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::{DType, Device};
use nsmc_bert::{BertConfig, BertForMaskedLm};
use nsmc_data::pretraining::{
    CorpusReview, MaskingVocabulary, Packing, PretrainingBatch, PretrainingLoader, build_corpus,
    hold_out, read_corpus,
};
use nsmc_data::{BertTokenizer, EncodedReviews, Format, Review, read_reviews};
use nsmc_eval::study;
use nsmc_experiment::{
    AdapterConfig, CorpusConfig, FileLock, ModelConfig, PretrainingConfig, Provenance, Stretch,
    rename_folder_durably, sha256_file, sha256_folder, sync_folder, write_durably,
};
use nsmc_peft::AdaptedMaskedLm;
use nsmc_training::{Pretraining, PretrainingMetrics, check_length, pretrain};
use serde_json::Value;

use crate::args::Pretrain;
use crate::classifier::scratch;
use crate::method::bottleneck;
use crate::output::print;
use crate::run_directory::Mended;
use crate::stop::Lifeline;
use crate::stretches::Stretches;
use crate::train::{dashboard, same_numerics};
use crate::{device, logging, provenance, run_directory, stretches};

/// The dropout of BERT's own `config.json`, and transformers' where a file names none.
///
/// A new model is saved with it: pre-training may do without, fine-tuning, which reads it there, does
/// not.
const BERT_DROPOUT: f64 = 0.1;

/// Pre-trains a model; a run directory of the same configuration goes on where it stopped.
pub(crate) fn run(args: &Pretrain, verbosity: u8) -> Result<()> {
    let lifeline = Lifeline::watch(args.stop_with_stdin);
    let config = PretrainingConfig::read(&args.config)?;
    let numerics = (config.numerics, config.todays_numerics());
    let made_by = "`cargo xtask pretrain` makes";
    same_numerics(&args.config, numerics, &config.changed_since(), made_by)?;
    let named = device::choose(args.device)?;
    let _lock = run_directory::lock(&args.out)?;
    let mended = open_run_directory(&args.out, &config)?;
    logging::start(verbosity, Some(&args.out.join("log.txt")))?;
    mended.warn();
    let stretches = Stretches::begin(&args.out, &named)?;
    let mut provenance =
        Provenance { inputs: provenance::model(&config.model)?, ..provenance::of_this_program() };
    provenance.inputs.insert("corpus".into(), config.corpus.sha256.clone());

    let Prepared { tokenizer, train, held_out, num_reviews } =
        Prepared::read(&config, &args.out, &args.cache.folder())?;
    let interrupter = lifeline.interrupter()?;
    let device = named.device.clone();
    let (base, bert) = base(&config, &tokenizer, &device.clone().autodiff())?;
    let dropout = has_dropout(&bert, config.adapter.as_ref());
    check_size(&bert, &config, &tokenizer)?;
    let target = Target::new(base, bert, &config)?;
    let pretraining = Pretraining {
        config: config.clone(),
        train,
        held_out,
        dropout,
        device,
        folder: args.out.clone(),
        dashboard: dashboard(false),
        interrupter,
    };
    let (trained, metrics) = target.train(&pretraining, &lifeline)?;
    let folder = trained.save(&args.out, &config, &tokenizer)?;
    let last = metrics.last().context("the last step is measured")?;
    let record = serde_json::json!({
        "identity": config.identity(),
        "config": config.without_paths(),
        "device": named.name,
        "threads": rayon::current_num_threads(),
        "version": env!("CARGO_PKG_VERSION"),
        "reviews": num_reviews,
        "parameters": trained.num_params(),
        "training_seconds": last.seconds,
        "metrics": metrics,
    });
    write_record(&args.out, record, stretches, &provenance)?;
    print(format_args!(
        "{}: {} steps, {:.1} M tokens, held-out loss {:.4}, masked accuracy {:.4}",
        folder.display(),
        last.step,
        last.tokens as f64 / 1e6,
        last.held_out_loss,
        last.held_out_accuracy
    ))
}

/// What a model is trained on and measured by.
struct Prepared {
    tokenizer: BertTokenizer,
    train: PretrainingLoader,
    /// The batches of the held-out reviews, masked once.
    held_out: Vec<PretrainingBatch>,
    /// Reviews of the corpus, those held out among them.
    num_reviews: usize,
}

impl Prepared {
    /// Reads the corpus, or builds it, and encodes it; a new model's tokenizer is kept in `run`.
    fn read(config: &PretrainingConfig, run: &Path, cache: &Path) -> Result<Self> {
        let CorpusConfig { archive, test, sha256, max_length, .. } = &config.corpus;
        let corpus = corpus(archive, test, sha256, cache)?;
        let split = hold_out(&corpus, config.corpus.held_out_fraction);
        let reviews: Vec<Review> = corpus.into_iter().map(Review::from).collect();
        let tokenizer = tokenizer(config, &reviews, &split.train, run)?;
        let encoded = EncodedReviews::encode_cached(&reviews, &tokenizer, *max_length, cache)
            .with_context(|| format!("the token cache {}", cache.display()))?;
        let encoded = Arc::new(encoded);
        let ids: Arc<[String]> = reviews.into_iter().map(|review| review.id).collect();
        let vocabulary = MaskingVocabulary::new(tokenizer.vocab())?;
        let packing = Packing {
            seed: config.seed,
            tokens_per_batch: config.training.tokens_per_batch,
            window: config.training.length_window,
        };
        let loader = |indices: Vec<usize>| {
            let (ids, encoded, vocabulary) = (ids.clone(), encoded.clone(), vocabulary.clone());
            let mask_fraction = config.training.mask_fraction;
            PretrainingLoader::new(ids, encoded, indices, vocabulary, mask_fraction, packing)
        };
        ensure!(!split.validation.is_empty(), "`corpus.held_out_fraction` holds out no review");
        let (train, held_out) = (loader(split.train)?, loader(split.validation)?);
        let held_out = (0..held_out.num_batches(0)).map(|batch| held_out.batch(0, batch)).collect();
        Ok(Self { tokenizer, train, held_out, num_reviews: ids.len() })
    }
}

/// What is trained.
#[expect(clippy::large_enum_variant, reason = "there is one of them in a process")]
enum Target {
    /// A whole model.
    Model(BertForMaskedLm, BertConfig),
    /// An adapter in a model that stays as it is.
    Adapter(AdaptedMaskedLm),
}

impl Target {
    /// The target of a configuration, in or of the model `base`.
    fn new(base: BertForMaskedLm, bert: BertConfig, config: &PretrainingConfig) -> Result<Self> {
        let Some(adapter) = &config.adapter else { return Ok(Self::Model(base, bert)) };
        let bottleneck = bottleneck(adapter).context("`adapter`")?;
        let model = AdaptedMaskedLm::new(base, &bert, &adapter.name, &bottleneck, config.seed)?;
        Ok(Self::Adapter(model))
    }

    fn train(
        self,
        pretraining: &Pretraining,
        lifeline: &Lifeline,
    ) -> Result<(Self, Vec<PretrainingMetrics>)> {
        match self {
            Self::Model(model, bert) => {
                let train = || pretrain(model, pretraining);
                let (model, metrics) = lifeline.during(&pretraining.interrupter, train)?;
                Ok((Self::Model(model, bert), metrics))
            }
            Self::Adapter(model) => {
                let train = || pretrain(model, pretraining);
                let (model, metrics) = lifeline.during(&pretraining.interrupter, train)?;
                Ok((Self::Adapter(model), metrics))
            }
        }
    }

    /// Writes what was trained into a folder of the run directory, which it gives back.
    fn save(
        &self,
        run: &Path,
        config: &PretrainingConfig,
        tokenizer: &BertTokenizer,
    ) -> Result<PathBuf> {
        match self {
            Self::Model(model, bert) => {
                let folder = run.join("model");
                let mut saved = bert.clone();
                if let ModelConfig::Scratch(_) = config.model {
                    saved.hidden_dropout_prob = BERT_DROPOUT;
                    saved.attention_probs_dropout_prob = BERT_DROPOUT;
                }
                // Half the size; fine-tuning widens the weights again.
                model.save_pretrained(&folder, &saved, DType::F16)?;
                tokenizer.save(&folder, config.corpus.max_length)?;
                Ok(folder)
            }
            Self::Adapter(model) => {
                let folder = run.join("adapter");
                model.save_adapter(&folder)?;
                Ok(folder)
            }
        }
    }

    /// Parameters of what was trained, without those of a model that stays as it is.
    fn num_params(&self) -> usize {
        match self {
            Self::Model(model, _) => model.num_params(),
            Self::Adapter(model) => model.adapters.num_params(),
        }
    }
}

/// Whether a training draws random numbers beside its masks.
fn has_dropout(bert: &BertConfig, adapter: Option<&AdapterConfig>) -> bool {
    bert.hidden_dropout_prob > 0.0
        || bert.attention_probs_dropout_prob > 0.0
        || adapter.is_some_and(|adapter| adapter.dropout > 0.0)
}

/// Refuses a model that is too small for the corpus.
fn check_size(
    bert: &BertConfig,
    config: &PretrainingConfig,
    tokenizer: &BertTokenizer,
) -> Result<()> {
    let positions = bert.max_position_embeddings;
    ensure!(
        config.corpus.max_length <= positions && tokenizer.vocab_size() <= bert.vocab_size,
        "the model has {positions} positions and {} tokens: too few for `corpus.max_length` or its \
         tokenizer",
        bert.vocab_size
    );
    Ok(())
}

/// Writes `record.json` with what every run has to say of itself, when all else is on the disk. One of
/// a training that was done before stays: it says who did it, and how long that took.
fn write_record(
    run: &Path,
    mut record: Value,
    stretches: Stretches,
    provenance: &Provenance,
) -> Result<()> {
    let stretches = stretches.end();
    sync_folder(run)?;
    if is_recorded(run, &record) {
        return Ok(fs_err::remove_file(run.join(stretches::FILE))?);
    }
    record["started"] = stretches.first().map(|first| first.started).into();
    record["total_seconds"] = Stretch::total_seconds(&stretches).into();
    record["peak_memory_mib"] = Stretch::peak_memory_mib(&stretches).into();
    record["stretches"] = serde_json::to_value(stretches)?;
    record["provenance"] = serde_json::to_value(provenance)?;
    write_durably(&run.join("record.json"), serde_json::to_string_pretty(&record)? + "\n")?;
    Ok(fs_err::remove_file(run.join(stretches::FILE))?)
}

/// Whether the run's record is of the same configuration, and of the same measurements, times
/// included.
fn is_recorded(run: &Path, record: &Value) -> bool {
    let found = fs_err::read(run.join("record.json")).ok();
    let found = found.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    found.is_some_and(|found| ["config", "metrics"].iter().all(|key| found[key] == record[key]))
}

/// Puts the configuration into a locked directory, or sees that it is of the same one, and that a
/// training of this length can go on there.
fn open_run_directory(folder: &Path, config: &PretrainingConfig) -> Result<Mended> {
    let found = PretrainingConfig::read(&folder.join("config.toml"));
    let there = found.as_ref().ok().cloned();
    let (same, mended) =
        run_directory::check(folder, found, PretrainingConfig::identity, &config.identity())?;
    ensure!(
        same,
        "{}: another configuration was begun there{}; give another directory with `--out`",
        folder.display(),
        there.map(|there| differences(&there, config)).unwrap_or_default()
    );
    if there.as_ref() != Some(config) {
        check_length(folder, config)?;
        run_directory::write_config(folder, &config.to_toml())?;
    }
    Ok(mended)
}

/// In which keys a pre-training is another.
fn differences(there: &PretrainingConfig, here: &PretrainingConfig) -> String {
    // In these it may be another and the same.
    let mut there = there.without_paths();
    there.training.num_train_steps = here.training.num_train_steps;
    there.training.decay_steps = here.training.decay_steps;
    there.evaluation = here.evaluation;
    run_directory::in_words(&study::differences(&there, &here.without_paths()))
}

/// The model that is trained, or that the adapter is trained in, and its configuration. An adapter's
/// is without dropout: it is trained as the model was. One that is trained further keeps its own.
fn base(
    config: &PretrainingConfig,
    tokenizer: &BertTokenizer,
    device: &Device,
) -> Result<(BertForMaskedLm, BertConfig)> {
    match &config.model {
        ModelConfig::Scratch(shape) => {
            let bert = scratch(shape, tokenizer.vocab_size());
            Ok((BertForMaskedLm::new(&bert, config.seed, device), bert))
        }
        ModelConfig::Pretrained { path, .. } => {
            let mut bert = BertConfig::read(&path.join("config.json"))?;
            if config.adapter.is_some() {
                (bert.hidden_dropout_prob, bert.attention_probs_dropout_prob) = (0.0, 0.0);
            }
            Ok((BertForMaskedLm::from_pretrained(path, &bert, device)?, bert))
        }
    }
}

/// The corpus with a sha256, built of the archive and the test set if it is not in the cache.
pub(crate) fn corpus(
    archive: &Path,
    test: &Path,
    expected: &str,
    cache: &Path,
) -> Result<Vec<CorpusReview>> {
    let path = cache.join(format!("corpus-{}.tsv", &expected[..16.min(expected.len())]));
    fs_err::create_dir_all(cache)?;
    // Trainings that are started side by side build it once.
    let _lock = FileLock::acquire(&path.with_extension("lock"), || {
        tracing::info!("waiting for another process that builds the corpus");
    })?;
    if !path.is_file() || sha256_file(&path)? != expected {
        let incoming = path.with_extension("incoming");
        let test = read_reviews(test, &nsmc())?;
        let summary = build_corpus(archive, &test, &incoming).with_context(|| {
            format!(
                "the corpus cannot be made of {}: if that is not the archive of NSMC's crawl, \
                 delete it, and `cargo xtask pretrain` fetches it again",
                archive.display()
            )
        })?;
        ensure!(
            summary.sha256 == expected,
            "{}: the corpus made of it should have sha256 {expected}, found {}: the archive or the \
             test file is not the documented one; delete them, and `cargo xtask pretrain` fetches \
             them again",
            archive.display(),
            summary.sha256
        );
        fs_err::rename(&incoming, &path)?;
        tracing::info!(reviews = summary.reviews, "corpus built");
    }
    Ok(read_corpus(&path)?)
}

/// NSMC's own format.
pub(crate) fn nsmc() -> Format {
    Format {
        id_column: Some("id".into()),
        text_column: "document".into(),
        label_column: "label".into(),
        labels: vec!["0".into(), "1".into()],
        delimiter: b'\t',
        quoting: false,
    }
}

/// The model's tokenizer; a new model's is trained on the reviews that are trained on.
fn tokenizer(
    config: &PretrainingConfig,
    reviews: &[Review],
    train: &[usize],
    run: &Path,
) -> Result<BertTokenizer> {
    let shape = match &config.model {
        ModelConfig::Pretrained { path, .. } => return Ok(BertTokenizer::from_pretrained(path)?),
        ModelConfig::Scratch(shape) => shape,
    };
    let (folder, hash) = (run.join("tokenizer"), run.join("tokenizer.sha256"));
    let whole = folder.is_dir()
        && hash.is_file()
        && fs_err::read(&hash)? == sha256_folder(&folder)?.as_bytes();
    if !whole {
        if folder.is_dir() {
            tracing::warn!(folder = %folder.display(), "damaged: the tokenizer is trained anew");
        }
        let documents: Vec<&str> =
            train.iter().map(|&review| reviews[review].document.as_str()).collect();
        let tokenizer = BertTokenizer::train(&documents, shape.vocab_size)?;
        let incoming = run.join("tokenizer.incoming");
        tokenizer.save(&incoming, config.corpus.max_length)?;
        write_durably(&hash, sha256_folder(&incoming)?)?;
        rename_folder_durably(&incoming, &folder)?;
    }
    Ok(BertTokenizer::from_pretrained(&folder)?)
}

#[cfg(test)]
mod tests {
    use nsmc_experiment::{seal, sha256_hex};
    use serde_json::json;

    use super::*;
    use crate::args::DeviceChoice;

    fn config() -> PretrainingConfig {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (profile, file) = (root.join("configs/pretraining/mini-cpu.toml"), Path::new("nsmc"));
        PretrainingConfig::read_profile(&profile, &root, file, file, &"0".repeat(64)).unwrap()
    }

    #[test]
    fn the_dropout_of_a_new_model_is_what_bert_has_where_its_file_names_none() {
        let bert: BertConfig = serde_json::from_value(json!({
            "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 8, "max_position_embeddings": 4
        }))
        .unwrap();
        let found = [bert.hidden_dropout_prob, bert.attention_probs_dropout_prob];
        assert_eq!(found.map(f64::to_bits), [BERT_DROPOUT.to_bits(); 2]);
        assert!(has_dropout(&bert, None));
    }

    #[test]
    fn a_directory_whose_training_is_further_on_keeps_its_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let long = config();
        let _ = open_run_directory(folder.path(), &long).unwrap();
        let checkpoint = folder.path().join("checkpoint/step-7");
        fs_err::create_dir_all(&checkpoint).unwrap();
        for file in ["weights.bpk", "optimizer.bpk"] {
            fs_err::write(checkpoint.join(file), "").unwrap();
        }
        let (identity, hash, steps) =
            (long.identity(), sha256_hex(b""), long.training.num_train_steps);
        let state = format!(
            "identity = \"{identity}\"\nstep = {steps}\nweights_sha256 = \"{hash}\"\n\
             optimizer_sha256 = \"{hash}\"\n[schedule]\nnum_train_steps = {steps}\n\
             decay_start = {}\n[state]\nstep = {steps}\nepoch = 0\nbatch = 0\ntokens = 0\n\
             seconds = 0.0\nloss_sum = 0.0\nloss_steps = 0\n",
            steps - long.training.decay_steps
        );
        fs_err::write(checkpoint.join("state.toml"), seal(&state)).unwrap();

        let mut short = long.clone();
        short.training.num_train_steps -= 1;
        let refused = open_run_directory(folder.path(), &short).err().unwrap().to_string();
        assert!(refused.contains(&format!("of a training of {steps} steps")), "{refused}");
        let kept = fs_err::read_to_string(folder.path().join("config.toml")).unwrap();
        assert_eq!(kept, long.to_toml());

        // What is no part of the identity may be another.
        let mut moved = long;
        moved.corpus.test = "elsewhere".into();
        moved.evaluation.save_every += 1;
        let _ = open_run_directory(folder.path(), &moved).unwrap();
        let kept = fs_err::read_to_string(folder.path().join("config.toml")).unwrap();
        assert_eq!(kept, moved.to_toml());
    }

    #[test]
    fn another_configuration_is_told_by_its_keys() {
        let folder = tempfile::tempdir().unwrap();
        let there = config();
        let _ = open_run_directory(folder.path(), &there).unwrap();
        let mut here = there.clone();
        here.seed += 1;
        here.training.learning_rate = 0.5;
        here.training.num_train_steps += 1;
        here.evaluation.save_every += 1;
        here.corpus.archive = "elsewhere".into();
        let refused = open_run_directory(folder.path(), &here).err().unwrap().to_string();
        let expected = format!(
            "another configuration was begun there (`seed` is {} there and {} here, \
             `training.learning_rate` is {:e} there and 0.5 here); give another directory",
            there.seed, here.seed, there.training.learning_rate
        );
        assert!(refused.contains(&expected), "{refused}");
    }

    #[test]
    fn the_record_of_a_training_that_is_done_stays_and_a_longer_one_adds_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        let named = device::choose(DeviceChoice::Cpu).unwrap();
        let write = |metrics: &Value| {
            let stretches = Stretches::begin(run, &named).unwrap();
            let record = json!({"config": {"seed": 1}, "metrics": metrics});
            write_record(run, record, stretches, &Provenance::default()).unwrap();
            assert!(!run.join(stretches::FILE).exists());
            fs_err::read_to_string(run.join("record.json")).unwrap()
        };
        let mut metrics = json!([{"step": 8, "seconds": 0.1}]);
        let first = write(&metrics);
        assert_eq!(write(&metrics), first, "nothing was trained");
        metrics.as_array_mut().unwrap().push(json!({"step": 9, "seconds": 0.2}));
        let [first, longer] =
            [first, write(&metrics)].map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(longer["stretches"].as_array().unwrap().len(), 2);
        assert_eq!(longer["stretches"][0], first["stretches"][0]);
        assert_eq!(longer["started"], first["started"]);
    }
}
