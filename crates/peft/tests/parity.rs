//! Every method against the Python libraries `adapters` and `peft`: all fixtures but `full_ft`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/support/fixture.rs"]
mod fixture;

use std::collections::{BTreeMap, BTreeSet};

use burn::optim::GradientsParams;
use burn::tensor::loss::cross_entropy_with_logits;
use burn::tensor::{Device, Tensor, TensorData};
use fixture::{Batch, Case, PARAMETER, assert_close, fixtures, floats, output};
use nsmc_bert::{Activation, BertConfig, BertForMaskedLm, BertForSequenceClassification};
use nsmc_experiment::Optimizer;
use nsmc_peft::{
    AdaptedMaskedLm, Bias, BottleneckConfig, Composition, HeadKind, LoadOptions, LoraConfig,
    PeftModel, Trains,
};
use nsmc_training::AdamW;

/// The fixtures' base, with dropout off.
fn base(device: &Device) -> PeftModel {
    let folder = fixtures().join("base");
    let config = BertConfig {
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        classifier_dropout: None,
        ..BertConfig::read(&folder.join("config.json")).unwrap()
    };
    let base = BertForSequenceClassification::from_pretrained(&folder, &config, 0, device).unwrap();
    PeftModel::new(base, &config)
}

/// The cases of the fixtures in which something is added to the base.
fn cases() -> Vec<Case> {
    let cases_in = |folder: &str| {
        let path = fixtures().join(folder).join("index.json");
        let index = fs_err::read_to_string(path).unwrap();
        let index: Vec<serde_json::Value> = serde_json::from_str(&index).unwrap();
        let names = index.iter().map(|case| case["case"].as_str().unwrap());
        let names = names.filter(|&name| name != "full_ft");
        names.map(|name| Case::read(&format!("{folder}{name}"))).collect::<Vec<_>>()
    };
    let mut cases = cases_in("");
    assert!(cases.len() > 10);
    // Another folder may be without options.
    if std::env::var_os("PARITY_FIXTURES").is_none() || fixtures().join("options").is_dir() {
        let options = cases_in("options/");
        assert!(options.len() > 10);
        cases.extend(options);
    }
    cases
}

/// The names of the parameters that train in a case.
fn trainable(case: &Case) -> BTreeSet<String> {
    let trainable = case.meta["trainable"].as_array().unwrap();
    trainable.iter().map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
}

/// Those of them that are nowhere used: they have no gradient, and AdamW passes them over.
fn without_gradient(case: &Case) -> BTreeSet<String> {
    let names = case.meta["without_gradient"].as_array().into_iter().flatten();
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// The part of a name between two others.
fn between(name: &str, start: &str) -> Option<String> {
    let (_, rest) = name.split_once(start)?;
    rest.split_once('.').map(|(name, _)| name.to_owned())
}

/// The model of a case, read from the files that the Python libraries wrote.
fn model(case: &Case, device: &Device) -> PeftModel {
    if case.folder.join("adapter_config.json").is_file() {
        lora(case, device)
    } else {
        adapters(case, device)
    }
}

fn lora(case: &Case, device: &Device) -> PeftModel {
    let mut from_file = base(device);
    from_file.load_peft(&case.folder, None).unwrap();
    // The fixtures were made with dropout off, but their files keep it.
    let file = from_file.adapters.lora.as_ref().unwrap().config();
    assert!(file.dropout > 0.0);
    let config = LoraConfig { dropout: 0.0, ..file.clone() };
    let mut model = base(device);
    let bias = model.load_peft(&case.folder, Some(&config)).unwrap();
    let trainable = trainable(case);
    let trains = |name: &str| trainable.contains(&format!("base_model.model.{name}.weight"));
    model.train_only(Trains {
        bias,
        head: trains("classifier"),
        pooler: trains("bert.pooler.dense"),
        layer_norm: trains("bert.embeddings.LayerNorm"),
        embeddings: trains("bert.embeddings.word_embeddings"),
        ..Trains::lora()
    })
}

fn adapters(case: &Case, device: &Device) -> PeftModel {
    let mut model = base(device);
    let composition = Composition::parse(case.meta["active_setup"].as_str().unwrap()).unwrap();
    for name in composition.names() {
        let loaded = model.load_adapter(&case.folder.join(name), &LoadOptions::default()).unwrap();
        assert_eq!(loaded, name);
    }
    let head = case.folder.join(composition.last());
    if head.join("head_config.json").is_file() {
        model.load_head(&head).unwrap();
    }
    for name in composition.fusions() {
        let folder = if name.contains(',') { name.clone() } else { format!("fusion_{name}") };
        assert_eq!(model.load_fusion(&case.folder.join(folder)).unwrap(), name);
    }
    model.set_active(Some(composition)).unwrap();
    let mut trains = Trains { head: true, ..Trains::nothing() };
    for name in trainable(case) {
        if let Some(fusion) = between(&name, ".adapter_fusion_layer.") {
            trains.fusions.insert(fusion);
        } else if let Some(adapter) = between(&name, ".invertible_adapters.") {
            trains.adapters.insert(adapter);
        } else if let Some(adapter) = between(&name, ".adapters.") {
            trains.bottlenecks.insert(adapter);
        }
    }
    model.train_only(trains)
}

fn loss(model: &PeftModel, batch: &Batch, device: &Device) -> Tensor<1> {
    let logits = model.forward(&batch.unpadded(device));
    let classes = logits.dims()[1];
    cross_entropy_with_logits(logits, batch.labels(device).one_hot(classes).float())
}

fn values(data: &TensorData) -> Vec<f32> {
    data.try_to_vec().unwrap()
}

#[test]
fn logits_and_losses_are_those_of_the_libraries() {
    let device = Device::flex();
    for case in cases() {
        let model = model(&case, &device);
        for index in 0..case.batches() {
            let batch = case.batch(index);
            for input in [batch.unpadded(&device), batch.padded(batch.width, &device)] {
                let logits = floats(model.forward(&input));
                case.assert_close(&format!("logits.{index}"), &logits, output());
            }
            let loss = floats(loss(&model, &batch, &device));
            case.assert_close(&format!("loss.{index}"), &loss, output());
        }
    }
}

#[test]
fn hidden_states_are_those_of_the_libraries() {
    let device = Device::flex();
    for case in cases() {
        let batch = case.batch(0);
        let states = model(&case, &device).hidden_states(&batch.unpadded(&device));
        assert_eq!(states.len(), case.names("hidden.").len());
        for (index, state) in states.into_iter().enumerate() {
            let key = format!("hidden.{index}");
            let expected = batch.tokens_of(case.floats(&key));
            assert_close(&format!("{}: {key}", case.name), &floats(state), &expected, output());
        }
    }
}

#[test]
fn what_trains_is_what_trains_in_the_libraries() {
    let device = Device::flex();
    for case in cases() {
        let model = model(&case, &device);
        let counts = model.parameter_counts();
        assert_eq!(counts.trainable as u64, case.meta["n_trainable"].as_u64().unwrap());
        let paths = model.trainable_paths();
        let names: BTreeSet<String> = paths.iter().map(|path| model.library_name(path)).collect();
        assert_eq!(names, trainable(&case), "{}", case.name);
    }
}

#[test]
fn gradients_are_those_of_the_libraries() {
    let device = Device::flex().autodiff();
    for case in cases() {
        let model = model(&case, &device);
        let gradients = loss(&model, &case.batch(0), &device).backward();
        let (gradients, without) = fixture::as_gradients(model.clone(), &gradients);
        let without: BTreeSet<String> =
            without.iter().map(|path| model.library_name(path)).collect();
        let gradients = gradients.state_dict();
        let expected = case.names("grad.");
        assert!(!expected.is_empty());
        for name in expected {
            assert!(!without.contains(name), "{}: {name} has no gradient", case.name);
            case.assert_close(&format!("grad.{name}"), &values(&gradients[name]), output());
        }
        // Nothing that is frozen or nowhere used takes one.
        let with = gradients.len() - without.len();
        let unused = without_gradient(&case).len();
        assert_eq!(with, trainable(&case).len() - unused, "{}", case.name);
    }
}

/// The model after a step of PyTorch's AdamW on each batch, and the losses before each.
fn train(case: &Case, regularize: bool) -> (PeftModel, Vec<f32>) {
    let device = Device::flex().autodiff();
    let optimizer = &case.meta["optimizer"];
    let number = |key: &str| optimizer[key].as_f64().unwrap();
    let mut model = model(case, &device);
    let mut losses = Vec::new();
    let adamw = AdamW {
        flavour: Optimizer::AdamwTorch,
        beta1: optimizer["betas"][0].as_f64().unwrap(),
        beta2: optimizer["betas"][1].as_f64().unwrap(),
        epsilon: number("eps"),
        weight_decay: number("weight_decay"),
    };
    let mut adamw = adamw.for_all_parameters(&Device::flex());
    for step in 0..case.batches() {
        let loss = loss(&model, &case.batch(step), &device);
        losses.extend(floats(loss.clone()));
        let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
        if regularize && step > 0 {
            gradients = model.add_regularizer_gradients(gradients);
        }
        model = adamw.step(number("lr"), model, gradients);
    }
    (model, losses)
}

fn assert_parameters(case: &Case, prefix: &str, model: &PeftModel) {
    let parameters = model.state_dict();
    let skipped = case.skip_after3();
    let names = case.names(prefix);
    assert!(names.len() > skipped.len());
    for name in names {
        if !skipped.contains(&name.to_owned()) {
            case.assert_parameter(prefix, name, &values(&parameters[name]));
        }
    }
}

#[test]
fn three_steps_of_adamw_give_the_parameters_of_the_libraries() {
    for case in cases() {
        let (model, losses) = train(&case, false);
        for (step, loss) in losses.iter().enumerate() {
            case.assert_close(&format!("train_loss.{step}"), &[*loss], output());
        }
        assert_parameters(&case, "after3.", &model);
        let device = Device::flex().autodiff();
        let logits = floats(model.forward(&case.batch(0).unpadded(&device)));
        case.assert_close("logits_after3.0", &logits, output());

        // What is frozen or nowhere used stays what it was, to the last bit.
        let (before, after) =
            (self::model(&case, &Device::flex()).state_dict(), model.state_dict());
        let trainable = &trainable(&case) - &without_gradient(&case);
        let frozen = before.iter().filter(|(name, _)| !trainable.contains(*name));
        for (name, data) in frozen {
            assert_eq!(&after[name], data, "{}: {name}", case.name);
        }
    }
}

#[test]
fn the_regularizer_enters_as_adapter_trainer_lets_it() {
    let case = Case::read("fusion");
    let (model, _) = train(&case, true);
    assert_parameters(&case, "after3_adaptertrainer.", &model);

    // Its gradient by itself: no gradient of the loss, none of the regulariser's step.
    let device = Device::flex().autodiff();
    let model = self::model(&case, &device);
    let gradients = model.add_regularizer_gradients(GradientsParams::new());
    let names = case.names("reg_grad.");
    assert!(!names.is_empty());
    let mut compared = 0;
    for (layer, module) in model.adapters.fusions[0].modules().enumerate() {
        let value = module.value.as_ref().unwrap();
        let gradient = gradients.get::<2>(value.weight.id).unwrap();
        let name = names.iter().find(|name| name.contains(&format!("layer.{layer}."))).unwrap();
        // A linear weight's sides are swapped here.
        case.assert_close(&format!("reg_grad.{name}"), &floats(gradient.transpose()), PARAMETER);
        compared += 1;
    }
    assert_eq!(compared, names.len());
}

#[test]
fn a_fusion_attends_as_in_the_library() {
    let case = Case::read("fusion");
    let device = Device::flex();
    let model = model(&case, &device);
    let batch = case.batch(0);
    let (logits, weights) = model.forward_with_fusion_weights(&batch.unpadded(&device));
    // Reading the weights changes nothing (but the last layer is computed for every token).
    let without = floats(model.forward(&batch.unpadded(&device)));
    assert_close("logits", &floats(logits), &without, PARAMETER);
    assert_eq!(weights.len(), case.names("fusion_attention.").len());
    for (layer, fusion) in weights.into_iter().enumerate() {
        assert_eq!(fusion.fusion, "ko,nsmc");
        let key = format!("fusion_attention.{layer}");
        let expected = batch.tokens_of(case.floats(&key));
        assert_close(&key, &floats(fusion.weights), &expected, output());
    }
}

fn assert_logits(case: &Case, key: &str, model: &PeftModel, device: &Device) {
    for index in 0..case.batches() {
        let logits = floats(model.forward(&case.batch(index).unpadded(device)));
        case.assert_close(&format!("{key}.{index}"), &logits, output());
    }
}

#[test]
fn the_order_of_a_fusion_counts() {
    let case = Case::read("fusion");
    let device = Device::flex();
    let mut model = model(&case, &device);
    let reversed = Composition::fuse(["nsmc", "ko"]);
    let error = model.set_active(Some(reversed.clone())).unwrap_err().to_string();
    assert!(error.contains("no fusion layer `nsmc,ko`"), "{error}");
    model.load_fusion(&case.folder.join("nsmc,ko")).unwrap();
    model.set_active(Some(reversed)).unwrap();
    // "ko" is no longer first: its invertible block is not active.
    assert_logits(&case, "logits_fuse_nsmc_ko", &model, &device);
}

#[test]
fn any_setup_of_a_stack_is_that_of_the_library() {
    let case = Case::read("stack");
    let device = Device::flex();
    let mut model = model(&case, &device);
    for (setup, key) in [
        (Some("Stack(nsmc, ko)"), "logits_stack_nsmc_ko"),
        (Some("ko"), "logits_single_ko"),
        (Some("nsmc"), "logits_single_nsmc"),
        (None, "logits_none"),
    ] {
        let setup = setup.map(|setup| Composition::parse(setup).unwrap());
        model.set_active(setup).unwrap();
        assert_logits(&case, key, &model, &device);
    }
}

#[test]
fn a_setup_is_read_from_its_file() {
    let case = Case::read("stack");
    let device = Device::flex();
    // The library keeps a setup with its adapters in folders beside its file.
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| {
        let (from, to) = (case.folder.join(from), folder.path().join(to));
        fs_err::create_dir_all(&to).unwrap();
        for entry in fs_err::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs_err::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    copy("setup", "");
    copy("ko", "ko");
    copy("nsmc", "nsmc");
    let mut model = base(&device);
    assert_eq!(model.load_setup(folder.path()).unwrap(), Composition::stack(["ko", "nsmc"]));
    assert_logits(&case, "logits", &model, &device);
}

#[test]
fn an_adapter_of_2020_runs_as_it_does_today_or_as_it_was_trained() {
    let case = Case::read("legacy_ko");
    let device = Device::flex();
    for (invertible_non_linearity, key) in
        [(None, "logits"), (Some(Activation::Relu), "logits_v1_relu_nice")]
    {
        let mut model = base(&device);
        let options = LoadOptions { load_as: Some("wiki".into()), invertible_non_linearity };
        assert_eq!(model.load_adapter(&case.folder.join("ko"), &options).unwrap(), "wiki");
        model.set_active(Some(Composition::single("wiki"))).unwrap();
        assert_logits(&case, key, &model, &device);
    }
}

#[test]
fn a_state_dict_of_loralib_gives_the_logits_of_peft() {
    let case = Case::read("lora_qv");
    let device = Device::flex();
    let path = case.folder.join("loralib_state_dict.bin");
    let rank = case.meta["saved_keys"].as_object().unwrap();
    let rank = rank.iter().find(|(name, _)| name.ends_with("lora_A.weight")).unwrap().1;
    let rank = usize::try_from(rank[0].as_u64().unwrap()).unwrap();
    let alpha = 2.0 * rank as f64;
    let config = LoraConfig::new(rank, alpha, &["query", "value"]);
    let mut model = base(&device);
    model.load_loralib(&path, &config).unwrap();
    assert_logits(&case, "logits", &model, &device);

    // Another rank, other layers: refused, and the model is as it was.
    let before = model.state_dict();
    for wrong in [
        LoraConfig::new(rank + 1, alpha, &["query", "value"]),
        LoraConfig::new(rank, alpha, &["query"]),
        LoraConfig::new(rank, alpha, &["query", "value", "key"]),
    ] {
        let mut other = base(&device);
        assert!(other.load_loralib(&path, &wrong).is_err());
        assert!(other.adapters.lora.is_none());
    }
    assert_eq!(model.state_dict(), before);
}

#[test]
fn what_is_written_is_read_back_with_the_same_logits() {
    let device = Device::flex();
    for case in cases() {
        let model = model(&case, &device);
        let folder = tempfile::tempdir().unwrap();
        let (read, torch) = if model.adapters.lora.is_some() {
            // PEFT's form for classification saves the classifier whole, which LoRA is on here.
            if case.name == "options/lora_every_table" {
                let error = model.save_peft("base", None, folder.path()).unwrap_err().to_string();
                assert!(error.contains("classifier has LoRA"), "{error}");
                continue;
            }
            model.save_peft("base", Some("0123abc"), folder.path()).unwrap();
            let config = fs_err::read_to_string(folder.path().join("adapter_config.json")).unwrap();
            let config: serde_json::Value = serde_json::from_str(&config).unwrap();
            let named = [&config["base_model_name_or_path"], &config["revision"]];
            assert_eq!(named, ["base", "0123abc"]);
            let mut read = base(&device);
            let bias = read.load_peft(folder.path(), None).unwrap();
            assert_eq!(bias, model.trains().bias);
            assert_ne!((case.name.as_str(), bias), ("lora_rslora_pattern", Bias::None));
            (read, None)
        } else {
            model.save_setup(folder.path()).unwrap();
            let mut read = base(&device);
            let composition = read.load_setup(folder.path()).unwrap();
            assert_eq!(Some(&composition), model.adapters.active());
            // The PyTorch files hold the same.
            for entry in walk(folder.path()) {
                if entry.extension().is_some_and(|extension| extension == "safetensors") {
                    fs_err::remove_file(entry).unwrap();
                }
            }
            let mut torch = base(&device);
            torch.load_setup(folder.path()).unwrap();
            (read, Some(torch))
        };
        let expected: BTreeMap<String, TensorData> = model.state_dict();
        assert_eq!(read.state_dict(), expected, "{}", case.name);
        for read in [Some(read), torch].into_iter().flatten() {
            for index in 0..case.batches() {
                let input = case.batch(index).unpadded(&device);
                assert_eq!(floats(read.forward(&input)), floats(model.forward(&input)));
            }
        }
    }
}

#[test]
fn a_checkpoint_brings_the_model_back() {
    let device = Device::flex();
    for case in cases() {
        let model = model(&case, &device);
        // Weights of the base that train are in it, too.
        let trains = Trains { pooler: true, layer_norm: true, ..model.trains().clone() };
        let mut model = model.train_only(trains);
        // AdapterHub's head stands in the place of the pooler, which then does not train.
        if !case.name.starts_with("flex") {
            let pooler = model.base.bert.pooler.as_mut().unwrap();
            pooler.dense.weight = pooler.dense.weight.clone().map(|weight| weight * 1.5);
        }
        let folder = tempfile::tempdir().unwrap();
        model.save_checkpoint(folder.path()).unwrap();
        assert!(PeftModel::is_checkpoint(folder.path()));
        let back = base(&device).load_checkpoint(folder.path()).unwrap();
        assert_eq!(back.state_dict(), model.state_dict(), "{}", case.name);
        assert_eq!(back.trains(), model.trains());
        let input = case.batch(0).unpadded(&device);
        assert_eq!(floats(back.forward(&input)), floats(model.forward(&input)), "{}", case.name);
        // The frozen encoder is not.
        let size = fs_err::metadata(folder.path().join("model.safetensors")).unwrap().len();
        assert!(size < 4 * model.parameter_counts().total as u64, "{}: {size}", case.name);
    }
}

#[test]
fn what_a_file_brought_of_the_base_is_in_the_checkpoint() {
    let device = Device::flex();
    let case = Case::read("lora_rslora_pattern");
    let mut model = base(&device);
    // The file brings biases, which then do not train.
    assert_eq!(model.load_peft(&case.folder, None).unwrap(), Bias::LoraOnly);
    let key = model.base.bert.encoder.layer[0].attention.self_attention.key.bias.as_mut().unwrap();
    *key = key.clone().map(|bias| bias + 1.0);
    let model = model.train_only(Trains::lora());
    let folder = tempfile::tempdir().unwrap();
    model.save_checkpoint(folder.path()).unwrap();
    let back = base(&device).load_checkpoint(folder.path()).unwrap();
    assert_eq!(back.state_dict(), model.state_dict());
}

#[test]
fn a_state_dict_of_loralib_holds_all_of_the_base_that_trained() {
    let device = Device::flex();
    let case = Case::read("lora_qv");
    let mut model = base(&device);
    model.load_peft(&case.folder, None).unwrap();
    let pooler = model.base.bert.pooler.as_mut().unwrap();
    pooler.dense.weight = pooler.dense.weight.clone().map(|weight| weight * 1.5);
    let norm = &mut model.base.bert.encoder.layer[0].output.layer_norm;
    norm.gamma = norm.gamma.clone().map(|gamma| gamma * 0.5);
    let words = &mut model.base.bert.embeddings.word_embeddings;
    words.weight = words.weight.clone().map(|weight| weight * 2.0);
    let trains = Trains { pooler: true, layer_norm: true, embeddings: true, ..Trains::lora() };
    let model = model.train_only(trains);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.bin");
    model.save_loralib(&path).unwrap();
    let mut back = base(&device);
    let config = model.adapters.lora.as_ref().unwrap().config().clone();
    back.load_loralib(&path, &config).unwrap();
    assert_eq!(back.state_dict(), model.state_dict());
    assert_ne!(back.state_dict(), {
        let mut only = base(&device);
        only.load_peft(&case.folder, None).unwrap();
        only.state_dict()
    });

    // A table that LoRA is on can have trained, too.
    let config = LoraConfig::new(4, 8.0, &["word_embeddings", "query"]);
    let mut model = base(&device);
    model.add_lora(&config, 3).unwrap();
    let words = &mut model.base.bert.embeddings.word_embeddings;
    words.weight = words.weight.clone().map(|weight| weight * 2.0);
    let model = model.train_only(Trains { embeddings: true, ..Trains::lora() });
    model.save_loralib(&path).unwrap();
    let mut back = base(&device);
    back.load_loralib(&path, &config).unwrap();
    assert_eq!(back.state_dict(), model.state_dict());
}

#[test]
fn a_loaded_classifier_takes_the_place_of_a_head() {
    let device = Device::flex();
    let input = Case::read("fusion").batch(0).unpadded(&device);
    // Both forms of AdapterHub's: transformers' class, and a head of one layer on the pooler.
    for folder in ["fusion/nsmc", "options/pooler_head/nsmc"] {
        let folder = fixtures().join(folder);
        let mut alone = base(&device);
        assert_eq!(alone.load_head(&folder).unwrap(), HeadKind::Classifier);
        let mut model = base(&device);
        model.load_head(&fixtures().join("flex_fusion/nsmc")).unwrap();
        assert_eq!(model.load_head(&folder).unwrap(), HeadKind::Classifier);
        assert_eq!(model.state_dict(), alone.state_dict());
        assert_eq!(floats(model.forward(&input)), floats(alone.forward(&input)));
    }
}

#[test]
fn a_heads_own_dropout_is_used_and_written_back() {
    let device = Device::flex().autodiff();
    let case = Case::read("flex_fusion");
    let input = case.batch(0).unpadded(&device);
    let folder = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(case.folder.join("nsmc")).unwrap() {
        let entry = entry.unwrap();
        fs_err::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let path = folder.path().join("head_config.json");
    let text = fs_err::read_to_string(&path).unwrap();
    let with = text.replace("\"dropout_prob\": null", "\"dropout_prob\": 0.5");
    assert_ne!(with, text);
    fs_err::write(&path, with).unwrap();

    // The model's own dropout is 0 here: without the head's two passes give the same.
    let own = |model: &PeftModel| model.head.as_ref().unwrap().dropout_prob();
    let moves = |model: &PeftModel| floats(model.forward(&input)) != floats(model.forward(&input));
    let mut model = base(&device);
    model.load_head(&case.folder.join("nsmc")).unwrap();
    assert_eq!((own(&model), moves(&model)), (None, false));
    let mut model = base(&device);
    model.load_head(folder.path()).unwrap();
    assert_eq!((own(&model), moves(&model)), (Some(0.5), true));

    let written = folder.path().join("written");
    model.save_head(&written).unwrap();
    let mut back = base(&device);
    back.load_head(&written).unwrap();
    assert_eq!((own(&back), moves(&back)), (Some(0.5), true));
    assert_eq!(back.state_dict(), model.state_dict());

    // It stays the head's in a checkpoint and with new weights.
    let checkpoint = folder.path().join("checkpoint");
    model.save_checkpoint(&checkpoint).unwrap();
    let mut back = base(&device).load_checkpoint(&checkpoint).unwrap();
    assert_eq!((own(&back), moves(&back)), (Some(0.5), true));
    back.renew_head(3);
    assert_eq!((own(&back), moves(&back)), (Some(0.5), true));
    let path = checkpoint.join("peft.json");
    let text = fs_err::read_to_string(&path).unwrap();
    fs_err::write(&path, text.replace("0.5", "1.0")).unwrap();
    let error = base(&device).load_checkpoint(&checkpoint).unwrap_err().to_string();
    assert!(error.contains("`head_dropout`: expected a number from 0 below 1"), "{error}");
}

#[test]
fn a_module_that_is_saved_whole_is_read_beside_lora_on_others() {
    let device = Device::flex();
    let case = Case::read("lora_qv");
    // As PEFT writes a layer that is saved whole: its own weights and no LoRA in it.
    let mut model = base(&device);
    let targets = LoraConfig {
        layers_to_transform: Some(vec![0, 2]),
        ..LoraConfig::new(4, 8.0, &["query", "value"])
    };
    model.add_lora(&targets, 3).unwrap();
    let mut model = model.train_only(Trains::lora());
    let layer = &mut model.base.bert.encoder.layer[1].output.dense.weight;
    *layer = layer.clone().map(|weight| weight * 1.5);
    let folder = tempfile::tempdir().unwrap();
    model.save_peft("base", None, folder.path()).unwrap();
    let whole: BTreeMap<String, TensorData> = model
        .state_dict()
        .into_iter()
        .filter(|(name, _)| {
            [".layer.1.", ".classifier.", ".lora_"].iter().any(|part| name.contains(part))
        })
        .collect();
    let bytes: BTreeMap<&String, (Vec<usize>, Vec<u8>)> = whole
        .iter()
        .map(|(name, data)| {
            let bytes = values(data).into_iter().flat_map(f32::to_le_bytes).collect();
            (name, (data.shape().as_slice().to_vec(), bytes))
        })
        .collect();
    let views = bytes.iter().map(|(name, (shape, bytes))| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.unwrap())
    });
    let weights = folder.path().join("adapter_model.safetensors");
    safetensors::serialize_to_file(views, None, &weights).unwrap();
    let path = folder.path().join("adapter_config.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&fs_err::read_to_string(&path).unwrap()).unwrap();
    config["modules_to_save"] = serde_json::json!(["layer.1", "classifier", "score"]);
    config["target_modules"] = serde_json::json!(["query", "value"]);
    config["layers_to_transform"] = serde_json::json!([]);
    fs_err::write(&path, config.to_string()).unwrap();

    let mut read = base(&device);
    read.load_peft(folder.path(), None).unwrap();
    assert_eq!(read.state_dict(), model.state_dict());
    let input = case.batch(0).unpadded(&device);
    assert_eq!(floats(read.forward(&input)), floats(model.forward(&input)));
    // A checkpoint keeps which layers have none.
    let checkpoint = folder.path().join("checkpoint");
    let read = read.train_only(Trains::lora());
    read.save_checkpoint(&checkpoint).unwrap();
    let back = base(&device).load_checkpoint(&checkpoint).unwrap();
    assert_eq!(back.state_dict(), model.state_dict());
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn merged_weights_give_the_same_logits() {
    let device = Device::flex();
    for case in cases() {
        let model = model(&case, &device);
        if model.adapters.lora.is_none() {
            assert!(model.merged().is_err());
            continue;
        }
        let merged = PeftModel::new(model.merged().unwrap(), model.config());
        let mut moved = 0.0f32;
        for index in 0..case.batches() {
            let input = case.batch(index).unpadded(&device);
            let (ours, theirs) = (floats(merged.forward(&input)), floats(model.forward(&input)));
            assert_close(&case.name, &ours, &theirs, PARAMETER);
            let plain = floats(PeftModel::new(model.base.clone(), model.config()).forward(&input));
            let change = plain.iter().zip(&theirs).map(|(a, b)| (a - b).abs());
            moved = change.fold(moved, f32::max);
        }
        // The updates are no small matter, so that leaving them out would show.
        assert!(moved > 10.0 * output(), "{}: {moved:e}", case.name);
    }
}

#[test]
fn a_pooler_that_the_base_lacked_is_no_part_of_the_base() {
    let device = Device::flex();
    let folder = fixtures().join("base");
    let config = BertConfig::read(&folder.join("config.json")).unwrap();
    let masked = tempfile::tempdir().unwrap();
    let dtype = burn::tensor::DType::F32;
    BertForMaskedLm::new(&config, 3, &device)
        .save_pretrained(masked.path(), &config, dtype)
        .unwrap();
    for (folder, lacks_one) in [(folder.as_path(), false), (masked.path(), true)] {
        let base =
            BertForSequenceClassification::from_pretrained(folder, &config, 7, &device).unwrap();
        let mut model = PeftModel::new(base, &config);
        model.add_lora(&LoraConfig::new(2, 4.0, &["query"]), 7).unwrap();
        let mut model = model.train_only(Trains::lora());
        assert_eq!(model.changes_base(), lacks_one);
        // A checkpoint is put on the base that is drawn again.
        let saved = tempfile::tempdir().unwrap();
        model.save_checkpoint(saved.path()).unwrap();
        let again =
            BertForSequenceClassification::from_pretrained(folder, &config, 7, &device).unwrap();
        let again = PeftModel::new(again, &config).load_checkpoint(saved.path()).unwrap();
        assert_eq!(again.changes_base(), lacks_one);
        assert_eq!(again.state_dict(), model.state_dict());
        // AdapterHub's head stands in the pooler's place.
        model.add_head("nsmc", 7);
        assert!(!model.changes_base());
    }
}

#[test]
fn what_trains_in_a_clone_says_nothing_of_the_model() {
    let device = Device::flex().autodiff();
    let folder = fixtures().join("base");
    let config = BertConfig::read(&folder.join("config.json")).unwrap();
    // Weights that are drawn when they are used, and have not been.
    let base = BertForSequenceClassification::new(&config, 0, &device);
    let mut model = PeftModel::new(base, &config);
    model.add_adapter("nsmc", &BottleneckConfig::pfeiffer(2.0), 0).unwrap();
    model.set_active(Some(Composition::single("nsmc"))).unwrap();
    let model = model.train_only(Trains::adapters(["nsmc"]));
    drop(model.clone().train_only(Trains::nothing()));
    let batch = Case::read("lora_qv").batch(0);
    let gradients = loss(&model, &batch, &device).backward();
    let (_, without) = fixture::as_gradients(model.clone(), &gradients);
    let with = model.trainable_paths().into_iter().filter(|path| !without.contains(path));
    assert_eq!(with.count(), model.trainable_paths().len());

    // A language adapter freezes its own base alone.
    let base = BertForMaskedLm::new(&config, 0, &device);
    let adapter = BottleneckConfig::pfeiffer(2.0);
    let adapted = AdaptedMaskedLm::new(base.clone(), &config, "ko", &adapter, 0).unwrap();
    assert!(!adapted.base.cls.predictions.bias.val().is_require_grad());
    assert!(base.cls.predictions.bias.val().is_require_grad());
}
