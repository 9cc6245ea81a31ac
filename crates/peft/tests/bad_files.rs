//! Files that must be refused: with an error that says what and where, nothing executed, and the
//! model as it was.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/support/fixture.rs"]
mod fixture;

use std::path::Path;

use burn::tensor::Device;
use fixture::fixtures;
use nsmc_bert::{BertConfig, BertForSequenceClassification};
use nsmc_peft::{Composition, FusionConfig, HeadKind, LoadOptions, PeftModel, Trains};
use safetensors::SafeTensors;
use serde_json::{Value, json};

fn base() -> PeftModel {
    let folder = fixtures().join("base");
    let config = BertConfig::read(&folder.join("config.json")).unwrap();
    let device = Device::flex();
    let base =
        BertForSequenceClassification::from_pretrained(&folder, &config, 0, &device).unwrap();
    PeftModel::new(base, &config)
}

/// A copy of a fixture's folder.
fn copy(from: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(fixtures().join(from)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs_err::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    folder
}

fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut json = serde_json::from_str(&fs_err::read_to_string(&path).unwrap()).unwrap();
    change(&mut json);
    fs_err::write(path, json.to_string()).unwrap();
}

/// Rewrites a safetensors file with some tensors under other names, or none.
fn rename(folder: &Path, file: &str, name: impl Fn(&str) -> Option<String>) {
    let path = folder.join(file);
    let bytes = fs_err::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let kept = tensors.iter().filter_map(|(key, tensor)| Some((name(key)?, tensor)));
    safetensors::serialize_to_file(kept.collect::<Vec<_>>(), None, &path).unwrap();
}

/// Loading must fail with these words and leave the model as it was.
#[track_caller]
fn refused(
    load: impl FnOnce(&mut PeftModel) -> Result<(), nsmc_peft::PeftError>,
    expected: &[&str],
) {
    let mut model = base();
    let before = model.state_dict();
    let message = load(&mut model).unwrap_err().to_string();
    for expected in expected {
        assert!(message.contains(expected), "{expected}\nis not in\n{message}");
    }
    assert_eq!(model.state_dict(), before);
    assert!(model.adapters.bottlenecks.is_empty() && model.adapters.lora.is_none());
}

#[track_caller]
fn adapter_refused(folder: &Path, expected: &[&str]) {
    refused(|model| model.load_adapter(folder, &LoadOptions::default()).map(|_| ()), expected);
}

#[test]
fn an_adapter_for_another_model() {
    let folder = copy("adapter_inv/ko");
    edit(folder.path(), "adapter_config.json", |config| config["hidden_size"] = json!(768));
    adapter_refused(folder.path(), &["adapter_config.json: `hidden_size`", "found 768"]);
    edit(folder.path(), "adapter_config.json", |config| config["model_type"] = json!("roberta"));
    adapter_refused(folder.path(), &["`model_type`: expected bert, found roberta"]);
    // The configuration may be silent; the tensors are not.
    let folder = copy("adapter_inv/ko");
    edit(folder.path(), "adapter_config.json", |config| {
        config["config"]["reduction_factor"] = json!(4);
    });
    adapter_refused(folder.path(), &["adapter.safetensors", "adapter_down.0.weight", "shape"]);
}

#[test]
fn an_adapter_of_another_kind() {
    for (key, value, expected) in [
        ("architecture", json!("prefix_tuning"), "`prefix_tuning` is not implemented"),
        ("is_parallel", json!(true), "`config.is_parallel` is not implemented"),
        ("inv_adapter", json!("glow"), "`glow` is not implemented"),
        ("non_linearity", json!("leakyrelu"), "`leakyrelu` is not implemented"),
        ("reduction_factor", json!(0), "expected a number from 1e-3 to 1e6, found 0e0"),
        ("reduction_factor", json!(1e-300), "found 1e-300"),
        ("inv_adapter_reduction_factor", json!(1e-300), "found 1e-300"),
        ("dropout", json!("0.1"), "`config.dropout`: expected a number or null, found \"0.1\""),
        ("stochastic_depth", json!("0.1"), "`config.stochastic_depth`: expected a number or null"),
        ("ln_before", json!("yes"), "`config.ln_before`: expected true or false"),
    ] {
        let folder = copy("adapter_inv/ko");
        edit(folder.path(), "adapter_config.json", |config| config["config"][key] = value);
        adapter_refused(folder.path(), &["adapter_config.json", expected]);
    }
    let folder = copy("adapter_houlsby/nsmc");
    edit(folder.path(), "adapter_config.json", |config| {
        config["config"]["residual_before_ln"] = json!("post_add");
    });
    let expected = "`residual_before_ln`: expected true or false where `original_ln_before`";
    adapter_refused(folder.path(), &["adapter_config.json", expected]);
}

#[test]
fn an_adapter_for_layers_that_the_model_does_not_have() {
    for (key, value, expected) in [
        ("leave_out", json!([7]), "`leave_out`: the model has the layers 0 to 2, found 7"),
        (
            "reduction_factor",
            json!({"7": 2, "default": 2}),
            "`reduction_factor`: the model has the layers 0 to 2, found 7",
        ),
        (
            "reduction_factor",
            json!({"1": 2}),
            "`config.reduction_factor`: expected a factor for layer 0, or a `default`",
        ),
    ] {
        let folder = copy("adapter_inv/ko");
        edit(folder.path(), "adapter_config.json", |config| config["config"][key] = value);
        adapter_refused(folder.path(), &["adapter_config.json: ", expected]);
    }
}

/// Read without a word, the run would be taken for one with it.
#[test]
fn a_non_linearity_for_an_invertible_block_that_is_not_there() {
    let options = LoadOptions {
        invertible_non_linearity: Some(nsmc_bert::Activation::Relu),
        ..LoadOptions::default()
    };
    let load = |folder: &str| {
        base().load_adapter(&fixtures().join(folder), &options).map_err(|error| error.to_string())
    };
    load("adapter_inv/ko").unwrap();
    let message = load("fusion/nsmc").unwrap_err();
    let expected = "adapter_config.json: the adapter has no invertible block, whose \
                    `invertible_non_linearity` is given";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn an_adapter_that_is_not_whole() {
    let folder = copy("adapter_inv/ko");
    fs_err::remove_file(folder.path().join("pytorch_adapter.bin")).unwrap();
    rename(folder.path(), "adapter.safetensors", |name| {
        (!name.contains("invertible")).then(|| name.to_owned())
    });
    adapter_refused(folder.path(), &["should have an invertible block", "adapter.safetensors"]);

    let folder = copy("adapter_inv/ko");
    fs_err::remove_file(folder.path().join("pytorch_adapter.bin")).unwrap();
    rename(folder.path(), "adapter.safetensors", |name| {
        Some(name.replace("layer.1.output.adapters.ko.adapter_up", "layer.7.adapter_up"))
    });
    adapter_refused(
        folder.path(),
        &["missing", "bert.encoder.layer.1.output.adapters.ko.adapter_up.weight", "layer.7"],
    );

    let folder = copy("adapter_inv/ko");
    fs_err::remove_file(folder.path().join("pytorch_adapter.bin")).unwrap();
    fs_err::write(folder.path().join("adapter.safetensors"), b"\x10\0\0\0\0\0\0\0{\"a\":").unwrap();
    adapter_refused(folder.path(), &["adapter.safetensors"]);
    fs_err::write(folder.path().join("adapter_config.json"), "{").unwrap();
    adapter_refused(folder.path(), &["adapter_config.json", "EOF"]);
    fs_err::remove_file(folder.path().join("adapter_config.json")).unwrap();
    adapter_refused(folder.path(), &["adapter_config.json", "no such file"]);
}

#[test]
fn a_name_that_leads_elsewhere() {
    for name in ["../nsmc", "a/b", "a.b", "a,b", "", "a b"] {
        let folder = copy("adapter_inv/ko");
        edit(folder.path(), "adapter_config.json", |config| config["name"] = json!(name));
        adapter_refused(folder.path(), &["expected an adapter's name"]);
        let folder = copy("adapter_inv/ko");
        let options = LoadOptions { load_as: Some(name.into()), ..LoadOptions::default() };
        refused(
            |model| model.load_adapter(folder.path(), &options).map(|_| ()),
            &["expected an adapter's name"],
        );
    }
}

/// A pickle that calls `os.system` when it is loaded by Python.
#[test]
fn a_pickle_with_more_than_tensors() {
    let folder = copy("adapter_inv/ko");
    fs_err::remove_file(folder.path().join("adapter.safetensors")).unwrap();
    let canary = folder.path().join("executed");
    let command = format!("touch {}", canary.display());
    let mut pickle = b"\x80\x02cposix\nsystem\nX".to_vec();
    pickle.extend(u32::try_from(command.len()).unwrap().to_le_bytes());
    pickle.extend(command.as_bytes());
    pickle.extend(b"\x85R.");
    let path = folder.path().join("pytorch_adapter.bin");
    fs_err::write(&path, &pickle).unwrap();
    adapter_refused(folder.path(), &["pytorch_adapter.bin"]);

    let mut archive = zip::ZipWriter::new(fs_err::File::create(&path).unwrap());
    archive.start_file("archive/data.pkl", zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut archive, &pickle).unwrap();
    archive.finish().unwrap();
    adapter_refused(folder.path(), &["pytorch_adapter.bin"]);
    assert!(!canary.exists());
}

#[test]
fn a_fusion_without_its_adapters_or_in_another_order() {
    let fusion = fixtures().join("fusion/ko,nsmc");
    refused(|model| model.load_fusion(&fusion).map(|_| ()), &["there is no adapter `ko`"]);

    let mut model = base();
    for name in ["ko", "nsmc"] {
        let folder = fixtures().join("fusion").join(name);
        model.load_adapter(&folder, &LoadOptions::default()).unwrap();
    }
    model.load_fusion(&fusion).unwrap();
    let error = model.set_active(Some(Composition::fuse(["nsmc", "ko"]))).unwrap_err().to_string();
    assert!(error.contains("the order matters") && error.contains("[ko,nsmc]"), "{error}");
    let folder = fixtures().join("fusion/ko");
    let error = model.load_adapter(&folder, &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("`ko`: there is an adapter of this name already"), "{error}");
}

#[test]
fn a_fusion_with_a_dropout_or_a_temperature_that_is_none() {
    let with = |key: &str, value: Value| {
        let mut model = base();
        for name in ["ko", "nsmc"] {
            let folder = fixtures().join("fusion").join(name);
            model.load_adapter(&folder, &LoadOptions::default()).unwrap();
        }
        let folder = copy("fusion/ko,nsmc");
        edit(folder.path(), "adapter_fusion_config.json", |config| {
            config["config"][key] = value;
        });
        model.load_fusion(folder.path()).map(|_| model).map_err(|error| error.to_string())
    };
    let with_dropout = |dropout| with("dropout_prob", dropout);
    // In Python, whatever is true by itself.
    for temperature in [json!(true), json!(1), json!("True")] {
        let message = with("temperature", temperature.clone()).unwrap_err();
        let expected = format!("`config.temperature`: expected false, found {temperature}");
        assert!(message.contains(&expected), "{message}");
    }
    with("temperature", Value::Null).unwrap();
    for (dropout, expected) in [
        (json!(1.0), "`dropout_prob`: expected a number from 0 below 1, found 1"),
        (json!(-0.1), "`dropout_prob`: expected a number from 0 below 1, found -0.1"),
        (json!("0.1"), "`config.dropout_prob`: expected a number or null, found \"0.1\""),
    ] {
        let message = with_dropout(dropout).unwrap_err();
        assert!(message.contains("adapter_fusion_config.json"), "{message}");
        assert!(message.contains(expected), "{expected}\nis not in\n{message}");
    }
    let model = with_dropout(json!(0.3)).unwrap();
    assert_eq!(model.adapters.fusions[0].config().dropout_prob, Some(0.3));

    // Nor can one be made.
    let mut model = model;
    let config = FusionConfig { dropout_prob: Some(1.0), ..FusionConfig::dynamic() };
    let error = model.add_fusion(&Composition::fuse(["nsmc", "ko"]), config, 0).unwrap_err();
    assert!(error.to_string().starts_with("`dropout_prob`"), "{error}");
}

#[test]
fn a_head_of_another_kind() {
    for (value, expected) in [
        (json!(1), "`config.dropout_prob`: expected a number from 0 below 1, found 1"),
        (json!(-0.5), "`config.dropout_prob`: expected a number from 0 below 1, found -0.5"),
        (json!("0.1"), "`config.dropout_prob`: expected a number or null, found \"0.1\""),
    ] {
        let folder = copy("flex_fusion/nsmc");
        edit(folder.path(), "head_config.json", |config| config["config"]["dropout_prob"] = value);
        let expected = &["head_config.json: ", expected];
        refused(|model| model.load_head(folder.path()).map(|_| ()), expected);
    }

    // A classifier of tokens has the same tensors; only the class says what it is.
    let folder = copy("fusion/nsmc");
    edit(folder.path(), "head_config.json", |config| {
        config["model_class"] = json!("BertForTokenClassification");
    });
    refused(
        |model| model.load_head(folder.path()).map(|_| ()),
        &[
            "head_config.json: `model_class`: expected BertForSequenceClassification",
            "found \"BertForTokenClassification\"",
        ],
    );
    edit(folder.path(), "head_config.json", |config| config["model_class"] = Value::Null);
    assert_eq!(base().load_head(folder.path()).unwrap(), HeadKind::Classifier);

    // One on the pooler has the dropout of the model's classifier, 0.1.
    let folder = copy("fusion/nsmc");
    let on_pooler = |dropout: Value| {
        edit(folder.path(), "head_config.json", |config| {
            config["name"] = json!("nsmc");
            config["config"] = json!({
                "head_type": "classification", "layers": 1, "use_pooler": true, "bias": true,
                "activation_function": null, "dropout_prob": dropout,
            });
        });
        let mut model = base();
        model.load_head(folder.path()).map_err(|error| error.to_string())
    };
    assert_eq!(on_pooler(Value::Null), Ok(HeadKind::Classifier));
    assert_eq!(on_pooler(json!(0.1)), Ok(HeadKind::Classifier));
    let message = on_pooler(json!(0.4)).unwrap_err();
    assert!(message.contains("expected null or the model's 0.1, found 0.4"), "{message}");
}

/// A head's own names for its classes; the fixtures' are `LABEL_0` and `LABEL_1`.
#[test]
fn a_head_whose_classes_are_in_another_order() {
    for head in ["fusion/nsmc", "flex_fusion/nsmc"] {
        let load = |labels: [&str; 2], label2id: Value| {
            let folder = copy(head);
            edit(folder.path(), "head_config.json", |config| {
                if config["config"].is_null() {
                    config["label2id"] = label2id;
                } else {
                    config["config"]["label2id"] = label2id;
                }
            });
            let model = base();
            let config = model.config().clone().with_labels(labels);
            let mut model = PeftModel::new(model.base, &config);
            model.load_head(folder.path()).map(|_| ()).map_err(|error| error.to_string())
        };
        let names = ["negative", "positive"];
        for label2id in [
            json!({"negative": 0, "positive": 1}),
            json!({"LABEL_0": 0, "LABEL_1": 1}),
            json!({"bad": 1, "good": 0}),
            json!({}),
            Value::Null,
        ] {
            assert_eq!(load(names, label2id.clone()), Ok(()), "{head}: {label2id}");
        }
        // These names say nothing.
        let generic = json!({"LABEL_1": 0, "LABEL_0": 1});
        assert_eq!(load(["LABEL_0", "LABEL_1"], generic), Ok(()));
        for (label2id, expected) in [
            (json!({"negative": 1, "positive": 0}), "found [positive, negative]"),
            (json!({"negative": "1", "positive": "0"}), "found [positive, negative]"),
            (json!({"negative": "one", "positive": 0}), "expected a class for `negative`"),
        ] {
            let message = load(names, label2id).unwrap_err();
            assert!(message.contains("head_config.json: `label2id`: expected"), "{message}");
            assert!(message.contains(expected), "{expected}\nis not in\n{message}");
        }
        let message = load(names, json!({"negative": 1, "positive": 0})).unwrap_err();
        for expected in ["in their order, [negative, positive]", "`label_names`", "`labels`"] {
            assert!(message.contains(expected), "{expected}\nis not in\n{message}");
        }
    }
}

/// By a path of this program's own a tensor has no place, whatever is there.
#[test]
fn a_tensor_by_the_name_of_a_path() {
    let folder = copy("fusion/nsmc");
    fs_err::remove_file(folder.path().join("pytorch_model_head.bin")).unwrap();
    rename(folder.path(), "model_head.safetensors", |name| match name {
        "classifier.weight" => Some("base.classifier.weight".to_owned()),
        other => Some(other.to_owned()),
    });
    refused(
        |model| model.load_head(folder.path()).map(|_| ()),
        &["missing (1):\n  classifier.weight", "surplus (1):\n  base.classifier.weight"],
    );
}

#[test]
fn a_head_whose_name_leads_elsewhere() {
    let folder = copy("flex_fusion/nsmc");
    edit(folder.path(), "head_config.json", |config| config["name"] = json!("../../x"));
    refused(|model| model.load_head(folder.path()).map(|_| ()), &["expected an adapter's name"]);
}

#[test]
fn a_setup_whose_head_lies_elsewhere() {
    let folder = setup(&json!(".."));
    refused(|model| model.load_setup(folder.path()).map(|_| ()), &["expected an adapter's name"]);
}

/// A setup with one adapter, `nsmc`, whose head is said to be what `head_setup` says.
fn setup(head_setup: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let json = json!({"adapter_setup": {"type": "single", "children": ["nsmc"]}, "head_setup": head_setup});
    fs_err::write(folder.path().join("adapter_setup.json"), json.to_string()).unwrap();
    fs_err::create_dir(folder.path().join("nsmc")).unwrap();
    for file in ["adapter_config.json", "adapter.safetensors"] {
        let from = fixtures().join("flex_fusion/nsmc").join(file);
        fs_err::copy(from, folder.path().join("nsmc").join(file)).unwrap();
    }
    folder
}

/// AdapterHub writes a head's name, a list of them, `true` for a head beside the setup, or nothing.
#[test]
fn a_setup_whose_head_is_not_where_it_says() {
    let load = |folder: &Path, model: &mut PeftModel| model.load_setup(folder).map(|_| ());
    for (head_setup, expected) in [
        (json!("sentiment"), "sentiment"),
        (json!(["sentiment"]), "sentiment"),
        (json!(true), "head_config.json: no such file"),
        (json!(["sentiment", "stars"]), "`head_setup`: expected one head's name, true or null"),
        (json!({"type": "parallel"}), "`head_setup`: expected one head's name, true or null"),
    ] {
        let folder = setup(&head_setup);
        refused(|model| load(folder.path(), model), &[expected]);
    }
    let without = setup(&Value::Null);
    let mut model = base();
    load(without.path(), &mut model).unwrap();
    let classifier = model.state_dict()["classifier.weight"].clone();
    let beside = setup(&json!(true));
    let ko = fixtures().join("adapter_inv/ko");
    fs_err::copy(ko.join("head_config.json"), beside.path().join("head_config.json")).unwrap();
    // Another than the base's.
    let mut head = fs_err::read(ko.join("model_head.safetensors")).unwrap();
    let last = head.len() - 2;
    head[last] ^= 1;
    fs_err::write(beside.path().join("model_head.safetensors"), head).unwrap();
    let mut model = base();
    load(beside.path(), &mut model).unwrap();
    assert_ne!(model.state_dict()["classifier.weight"], classifier);
}

/// Python saves one of the two files, and trains on: the other is of before.
#[test]
fn two_files_of_weights_that_are_not_the_same() {
    let folder = copy("stack/ko");
    let load = |model: &mut PeftModel| {
        model.load_adapter(folder.path(), &LoadOptions::default()).map(|_| ())
    };
    load(&mut base()).unwrap();
    let weights = folder.path().join("adapter.safetensors");
    let mut bytes = fs_err::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs_err::write(&weights, bytes).unwrap();
    refused(load, &["pytorch_adapter.bin: it holds other weights than adapter.safetensors"]);
    fs_err::remove_file(weights).unwrap();
    load(&mut base()).unwrap();
}

#[test]
fn what_a_form_has_no_place_for_is_not_left_out_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut lora = base();
    lora.load_peft(&fixtures().join("lora_qv"), None).unwrap();
    let mut both = lora.clone();
    both.load_adapter(&fixtures().join("stack/ko"), &LoadOptions::default()).unwrap();
    let mut headed = lora.clone();
    headed.add_head("sentiment", 1);
    let trained = lora.clone().train_only(Trains { base: true, ..Trains::lora() });
    let path = folder.path().join("lora.bin");
    for (written, expected) in [
        (both.save_peft("base", None, folder.path()), "has adapters of AdapterHub's, too"),
        (both.save_loralib(&path), "has adapters of AdapterHub's, too"),
        (both.save_adapter("ko", folder.path()), "no place for PEFT's LoRA"),
        (headed.save_peft("base", None, folder.path()), "has a head of AdapterHub's, too"),
        (headed.save_loralib(&path), "has a head of AdapterHub's, too"),
        (headed.save_head(folder.path()), "no place for PEFT's LoRA"),
        (headed.merged().map(|_| ()), "the head is AdapterHub's"),
        (trained.save_loralib(&path), "the whole base trained"),
    ] {
        let message = written.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
}

/// PEFT, told to save the embeddings, wraps their tables, too, and writes each under two names, of which
/// one is of before the training. It cannot load the file.
#[test]
fn two_tensors_for_one_place() {
    let folder = copy("lora_qv");
    let path = folder.path().join("adapter_model.safetensors");
    let bytes = fs_err::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut named: Vec<_> =
        tensors.iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    let (name, tensor) =
        named.iter().find(|(name, _)| name.ends_with("classifier.weight")).unwrap().clone();
    // Beside one that is saved whole, the other is of before the training.
    let [first, second] = ["default.", ""].map(|adapter| {
        name.replace("classifier.", &format!("classifier.modules_to_save.{adapter}"))
    });
    named.push((first.clone(), tensor.clone()));
    safetensors::serialize_to_file(named.clone(), None, &path).unwrap();
    base().load_peft(folder.path(), None).unwrap();
    named.push((second.clone(), tensor));
    safetensors::serialize_to_file(named, None, &path).unwrap();
    let expected = format!("`{first}` and `{second}` are two tensors for one place");
    let place = "adapter_model.safetensors: ";
    refused(|model| model.load_peft(folder.path(), None).map(|_| ()), &[place, &expected]);
}

#[test]
fn a_peft_folder_that_does_not_fit() {
    let load = |folder: &Path, expected: &[&str]| {
        refused(|model| model.load_peft(folder, None).map(|_| ()), expected);
    };
    let folder = copy("lora_qv");
    edit(folder.path(), "adapter_config.json", |config| config["peft_type"] = json!("IA3"));
    load(folder.path(), &["adapter_config.json: `peft_type`: expected \"LORA\", found \"IA3\""]);
    for (key, value, expected) in [
        ("r", json!(3), "adapter_model.safetensors"),
        ("r", json!(u64::MAX), "expected a rank from 1 to 100000"),
        ("target_modules", json!(["query"]), "value.lora_A.weight"),
        ("target_modules", json!(["q_proj"]), "bert.encoder.layer.0.attention.self.query"),
        ("target_modules", json!("("), "no valid regular expression"),
        ("bias", json!("all"), "missing"),
    ] {
        let folder = copy("lora_qv");
        edit(folder.path(), "adapter_config.json", |config| config[key] = value);
        load(folder.path(), &[expected]);
    }
    // What a file says is called as it is there.
    for (key, value, expected) in [
        ("r", json!(0), "`r`: expected a rank from 1 to 100000"),
        ("lora_alpha", json!(8), ""),
        ("lora_dropout", json!(1.0), "`lora_dropout`: expected a number from 0 below 1, found 1"),
        ("target_modules", json!(["q_proj"]), "`target_modules` = [\"q_proj\"]: no layer matches"),
        ("target_modules", json!("("), "`target_modules`: `(` is no valid regular expression"),
        ("exclude_modules", json!("("), "`exclude_modules`: `(` is no valid regular expression"),
        ("rank_pattern", json!({"(": 2}), "`rank_pattern`: `(` is no valid regular expression"),
        ("layers_to_transform", json!([9]), "`layers_to_transform`: no layer that"),
    ] {
        let folder = copy("lora_qv");
        edit(folder.path(), "adapter_config.json", |config| config[key] = value);
        if expected.is_empty() {
            base().load_peft(folder.path(), None).unwrap();
            continue;
        }
        let expected = format!("adapter_config.json: {expected}");
        load(folder.path(), &[&expected]);
        let given = nsmc_peft::LoraConfig::new(4, 8.0, &["query", "value"]);
        let with_config =
            |model: &mut PeftModel| model.load_peft(folder.path(), Some(&given)).map(|_| ());
        refused(with_config, &[&expected]);
    }
    // A classifier has a place by the task or by name; without either it is surplus.
    let folder = copy("lora_qv");
    edit(folder.path(), "adapter_config.json", |config| config["modules_to_save"] = Value::Null);
    base().load_peft(folder.path(), None).unwrap();
    edit(folder.path(), "adapter_config.json", |config| config["task_type"] = Value::Null);
    load(folder.path(), &["classifier"]);
}

/// A classifier of tokens has the name of one of texts, and with two classes its shape.
#[test]
fn a_peft_folder_whose_classifier_is_of_another_task() {
    let folder = copy("lora_qv");
    edit(folder.path(), "adapter_config.json", |config| config["task_type"] = json!("TOKEN_CLS"));
    let load = |model: &mut PeftModel| model.load_peft(folder.path(), None).map(|_| ());
    let expected =
        "adapter_config.json: `task_type`: expected \"SEQ_CLS\" or null, found \"TOKEN_CLS\"";
    refused(load, &[expected, "adapter_model.safetensors", "take the classifier out"]);
    // The updates alone may be started from.
    edit(folder.path(), "adapter_config.json", |config| config["modules_to_save"] = Value::Null);
    rename(folder.path(), "adapter_model.safetensors", |name| {
        (!name.contains("classifier")).then(|| name.to_owned())
    });
    load(&mut base()).unwrap();
}

/// Each by its own name: adapters and fusions have one, LoRA has none.
#[test]
fn what_is_there_already() {
    let mut model = base();
    let message = |result: Result<(), nsmc_peft::PeftError>| result.unwrap_err().to_string();
    for name in ["a", "b"] {
        let config = nsmc_peft::BottleneckConfig::pfeiffer(2.0);
        model.add_adapter(name, &config, 0).unwrap();
        let expected = format!("`{name}`: there is an adapter of this name already");
        assert!(message(model.add_adapter(name, &config, 0)).starts_with(&expected));
    }
    let fuse = Composition::fuse(["a", "b"]);
    model.add_fusion(&fuse, FusionConfig::dynamic(), 0).unwrap();
    let again = message(model.add_fusion(&fuse, FusionConfig::dynamic(), 0));
    assert_eq!(again, "`a,b`: there is a fusion of these adapters already");
    let lora = nsmc_peft::LoraConfig::new(2, 4.0, &["query"]);
    model.add_lora(&lora, 0).unwrap();
    let again = message(model.add_lora(&lora, 0));
    assert!(again.starts_with("the model has LoRA already"), "{again}");
}

#[test]
fn a_fusion_over_a_stack_with_adapters_in_more_places_than_its_last() {
    let mut model = base();
    for (name, config) in [
        ("x", nsmc_peft::BottleneckConfig::houlsby(4.0)),
        ("a", nsmc_peft::BottleneckConfig::pfeiffer(4.0)),
        ("b", nsmc_peft::BottleneckConfig::pfeiffer(2.0)),
    ] {
        model.add_adapter(name, &config, 0).unwrap();
    }
    let fuse = Composition::parse("Fuse(Stack(x, a), b)").unwrap();
    model.add_fusion(&fuse, nsmc_peft::FusionConfig::dynamic(), 0).unwrap();
    let message = model.set_active(Some(fuse)).unwrap_err().to_string();
    let expected = "behind attention of layer 0 there is `x`, but not `b`";
    assert!(message.contains(expected), "{message}");
    assert!(model.adapters.active().is_none());
    assert!(
        model.save_adapter("y", Path::new("none")).unwrap_err().to_string().contains("[x, a, b]")
    );
}
