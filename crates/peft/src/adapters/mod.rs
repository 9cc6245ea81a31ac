mod forward;

use burn::module::Module;
use nsmc_bert::{Init, SublayerSite};

use crate::composition::{check_name, fusion_name};
use crate::{
    AdapterFusion, BottleneckAdapter, BottleneckConfig, Composition, FusionConfig, Lora,
    NiceCouplingBlock, PeftError,
};

/// Standard deviation of the weights of a new adapter, invertible block or fusion layer: that of
/// `Adapter.init_bert_weights` in adapters' `methods/modeling.py`, whatever the model's
/// `initializer_range` is.
pub(crate) const INIT_STD: f64 = 0.02;

/// Everything that is added to a BERT: bottleneck adapters, fusion layers and LoRA's updates. Put
/// into its forward pass as [`Hooks`](nsmc_bert::Hooks).
#[derive(Module, Debug, Default)]
pub struct Adapters {
    /// Bottleneck adapters, each with its name.
    pub bottlenecks: Vec<Adapter>,
    /// AdapterFusion layers, each with its name.
    pub fusions: Vec<Fusion>,
    /// LoRA's updates.
    pub lora: Option<Lora>,
    #[module(skip)]
    active: Option<Composition>,
}

/// A named bottleneck adapter: one module per layer and place, and perhaps an invertible one.
#[derive(Module, Debug)]
pub struct Adapter {
    /// One entry per encoder layer.
    pub layer: Vec<AdapterLayer>,
    /// Behind the embeddings.
    pub invertible: Option<NiceCouplingBlock>,
    #[module(skip)]
    name: String,
    #[module(skip)]
    config: BottleneckConfig,
}

/// An adapter's modules in one encoder layer.
#[derive(Module, Debug)]
pub struct AdapterLayer {
    /// After attention.
    pub attention: Option<BottleneckAdapter>,
    /// After the feed-forward layer.
    pub output: Option<BottleneckAdapter>,
}

/// A named AdapterFusion: one module per layer and place.
#[derive(Module, Debug)]
pub struct Fusion {
    /// One entry per encoder layer.
    pub layer: Vec<FusionLayer>,
    #[module(skip)]
    name: String,
    #[module(skip)]
    config: FusionConfig,
}

/// A fusion's modules in one encoder layer.
#[derive(Module, Debug)]
pub struct FusionLayer {
    /// After attention.
    pub attention: Option<AdapterFusion>,
    /// After the feed-forward layer.
    pub output: Option<AdapterFusion>,
}

/// The size of the model that adapters are added to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ModelSize {
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) attention_dropout: f64,
}

impl Adapters {
    /// Adds a new bottleneck adapter.
    pub(crate) fn add_adapter(
        &mut self,
        name: &str,
        config: &BottleneckConfig,
        size: ModelSize,
        init: &Init<'_>,
    ) -> Result<(), PeftError> {
        check_name(name)?;
        config.check()?;
        config.check_size(size.hidden_size, size.num_hidden_layers)?;
        if self.adapter(name).is_some() {
            return Err(PeftError::AdapterTaken(name.into()));
        }
        let init = init.enter("adapters").enter(name);
        let layer = (0..size.num_hidden_layers).map(|layer| {
            let module = |place: &str, wanted: bool| {
                let width = config.bottleneck_size(size.hidden_size, layer).filter(|_| wanted)?;
                let init = init.enter("layer").enter(layer).enter(place);
                Some(BottleneckAdapter::new(config, size.hidden_size, width, &init))
            };
            AdapterLayer {
                attention: module("attention", config.mh_adapter),
                output: module("output", config.output_adapter),
            }
        });
        self.bottlenecks.push(Adapter {
            layer: layer.collect(),
            invertible: config.invertible.map(|invertible| {
                NiceCouplingBlock::new(&invertible, size.hidden_size, &init.enter("invertible"))
            }),
            name: name.into(),
            config: config.clone(),
        });
        Ok(())
    }

    /// Adds a new fusion layer over adapters that are there already, for that order of them.
    pub(crate) fn add_fusion(
        &mut self,
        composition: &Composition,
        config: FusionConfig,
        size: ModelSize,
        init: &Init<'_>,
    ) -> Result<(), PeftError> {
        composition.check()?;
        config.check()?;
        let error = |message: String| {
            Err(PeftError::Composition { setup: composition.to_string(), message })
        };
        let Composition::Fuse(children) = composition else {
            return error("expected `Fuse(...)`".into());
        };
        let mut fused = Vec::new();
        for child in children {
            match self.adapter(child.last()) {
                Some(adapter) => fused.push(adapter),
                None => return error(self.no_adapter(child.last())),
            }
        }
        let places = |config: &BottleneckConfig| (config.mh_adapter, config.output_adapter);
        let first = &fused[0].config;
        if let Some(other) = fused.iter().find(|other| places(&other.config) != places(first)) {
            return error(format!(
                "the adapters `{}` and `{}` are not at the same places (`mh_adapter`, \
                 `output_adapter`), so that they cannot be fused",
                fused[0].name, other.name
            ));
        }
        // The last says how a fused layer starts and ends.
        let last = fused[fused.len() - 1];
        for layer in 0..size.num_hidden_layers {
            let is_here = |adapter: &Adapter| !adapter.config.leave_out.contains(&layer);
            let other = fused.iter().find(|other| is_here(other));
            if let Some(other) = other.filter(|_| !is_here(last)) {
                return error(format!(
                    "expected the last adapter, `{}`, in every layer that another is in: its \
                     `leave_out` has layer {layer}, where `{}` is; put another last",
                    last.name, other.name
                ));
            }
        }
        let name = fusion_name(children);
        if self.fusion(&name).is_some() {
            return Err(PeftError::FusionTaken(name));
        }
        let (attention, output) = (first.mh_adapter, first.output_adapter);
        let init = init.enter("fusions").enter(&name);
        let layer = (0..size.num_hidden_layers).map(|layer| {
            let module = |place: &str, wanted: bool| {
                let init = init.enter("layer").enter(layer).enter(place);
                let dropout = size.attention_dropout;
                wanted.then(|| AdapterFusion::new(config, size.hidden_size, dropout, &init))
            };
            FusionLayer {
                attention: module("attention", attention),
                output: module("output", output),
            }
        });
        self.fusions.push(Fusion { layer: layer.collect(), name, config });
        Ok(())
    }

    /// Makes a composition active: it must name adapters and fusions that are there.
    pub(crate) fn set_active(&mut self, active: Option<Composition>) -> Result<(), PeftError> {
        if let Some(composition) = &active {
            composition.check()?;
            let error =
                |message| Err(PeftError::Composition { setup: composition.to_string(), message });
            for name in composition.names() {
                if self.adapter(name).is_none() {
                    return error(self.no_adapter(name));
                }
            }
            for name in composition.fusions() {
                if self.fusion(&name).is_none() {
                    let known: Vec<&str> = self.fusions.iter().map(Fusion::name).collect();
                    return error(format!(
                        "there is no fusion layer `{name}` (the order matters); there are: [{}]",
                        known.join("; ")
                    ));
                }
            }
            for fuse in composition.fuse_blocks() {
                let mistake = self.absent_last(composition, fuse);
                if let Some(message) = mistake.or_else(|| self.absent_block(fuse)) {
                    return error(message);
                }
            }
        }
        self.active = active;
        Ok(())
    }

    /// Says where an adapter of the setup is, but not the last of this `Fuse` in it, whose
    /// configuration starts and ends the fused sub-layer: AdapterHub fails there. Without it the
    /// others of the `Fuse` would train and be saved, and never be applied.
    fn absent_last(&self, composition: &Composition, fuse: &Composition) -> Option<String> {
        let last = self.adapter(fuse.last())?;
        for layer in 0..last.layer.len() {
            for (site, place) in [
                (SublayerSite::Attention(layer), "attention"),
                (SublayerSite::FeedForward(layer), "the feed-forward layer"),
            ] {
                let is_here = |name: &str| self.module(name, site).is_some();
                let other = composition.names().into_iter().find(|name| is_here(name));
                if let Some(other) = other.filter(|_| !is_here(&last.name)) {
                    return Some(format!(
                        "expected the last adapter of `{fuse}`, `{}`, wherever another of the setup \
                         is: behind {place} of layer {layer} there is `{other}`, but not `{}`; give \
                         them the same places (`mh_adapter`, `output_adapter`) and the same \
                         `leave_out`",
                        last.name, last.name
                    ));
                }
            }
        }
        None
    }

    /// Says where a `Fuse` has a block for a child of which no adapter is there: in its place AdapterHub
    /// fuses what the adapter before the `Fuse` gave, and fails if there is none.
    fn absent_block(&self, fuse: &Composition) -> Option<String> {
        let Composition::Fuse(children) = fuse else { return None };
        let last = self.adapter(fuse.last())?;
        for layer in 0..last.layer.len() {
            for site in [SublayerSite::Attention(layer), SublayerSite::FeedForward(layer)] {
                let is_here = |name: &str| self.module(name, site).is_some();
                let absent = children.iter().find(|child| {
                    !matches!(child, Composition::Single(_))
                        && !child.names().into_iter().any(is_here)
                });
                if let Some(block) = absent.filter(|_| is_here(&last.name)) {
                    return Some(format!(
                        "expected an adapter of `{block}` in every layer that the last of `{fuse}`, \
                         `{}`, is in: none is in layer {layer}; take the layer out of the \
                         `leave_out` of one of them, or into that of `{}`",
                        last.name, last.name
                    ));
                }
            }
        }
        None
    }

    pub(crate) fn no_adapter(&self, name: &str) -> String {
        let known: Vec<&str> = self.bottlenecks.iter().map(Adapter::name).collect();
        format!("there is no adapter `{name}`; there are: [{}]", known.join(", "))
    }

    /// The active composition.
    pub fn active(&self) -> Option<&Composition> {
        self.active.as_ref()
    }

    /// The adapter of a name.
    pub fn adapter(&self, name: &str) -> Option<&Adapter> {
        self.bottlenecks.iter().find(|adapter| adapter.name == name)
    }

    /// The fusion of a name: its adapters', joined by commas.
    pub fn fusion(&self, name: &str) -> Option<&Fusion> {
        self.fusions.iter().find(|fusion| fusion.name == name)
    }
}

impl Adapter {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration.
    pub fn config(&self) -> &BottleneckConfig {
        &self.config
    }
}

impl Fusion {
    /// Its adapters' names, joined by commas.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration.
    pub fn config(&self) -> FusionConfig {
        self.config
    }

    /// Its modules, from the first layer up.
    pub fn modules(&self) -> impl Iterator<Item = &AdapterFusion> {
        self.layer.iter().flat_map(|layer| layer.attention.iter().chain(&layer.output))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use nsmc_bert::{Activation, BertConfig, BertForSequenceClassification, BertInput};

    use super::*;
    use crate::PeftModel;

    /// A model of three layers with the adapters `a` and `b`.
    fn model(a: BottleneckConfig, b: BottleneckConfig) -> PeftModel {
        let config: BertConfig = serde_json::from_str(
            r#"{"vocab_size": 19, "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2,
                "intermediate_size": 16, "max_position_embeddings": 16}"#,
        )
        .unwrap();
        let base = BertForSequenceClassification::new(&config, 3, &Device::flex());
        let mut model = PeftModel::new(base, &config);
        for (name, config) in [("a", a), ("b", b)] {
            model.add_adapter(name, &config, 5).unwrap();
        }
        model
    }

    fn without(layers: &[usize]) -> BottleneckConfig {
        BottleneckConfig { leave_out: layers.to_vec(), ..BottleneckConfig::pfeiffer(2.0) }
    }

    fn fuse(model: &mut PeftModel, names: [&str; 2]) -> Result<Composition, String> {
        let fuse = Composition::fuse(names);
        match model.add_fusion(&fuse, FusionConfig::dynamic(), 0) {
            Ok(()) => Ok(fuse),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn adapters_are_fused_in_the_layers_that_they_are_in() {
        // In the last layer there is neither.
        let mut model = model(without(&[1, 2]), without(&[2]));
        let setup = fuse(&mut model, ["a", "b"]).unwrap();
        model.set_active(Some(setup)).unwrap();
        let input = BertInput::from_ids(&[vec![2, 7, 3]], &Device::flex());
        let (logits, fusions) = model.forward_with_fusion_weights(&input);
        assert_eq!(logits.dims(), [1, 2]);
        let sites: Vec<SublayerSite> = fusions.iter().map(|fusion| fusion.site).collect();
        assert_eq!(sites, [SublayerSite::FeedForward(0), SublayerSite::FeedForward(1)]);
        for (fusion, is_here) in fusions.into_iter().zip([true, false]) {
            assert_eq!(fusion.weights.dims(), [3, 2]);
            let weights: Vec<f32> = fusion.weights.into_data().try_to_vec().unwrap();
            for pair in weights.chunks(2) {
                assert_eq!(pair[0] > 0.0, is_here, "{pair:?}");
                assert!((pair[0] + pair[1] - 1.0).abs() < 1e-6, "{pair:?}");
            }
        }
    }

    #[test]
    fn a_fusion_whose_last_adapter_is_not_where_another_is_is_refused() {
        let mut adapters = model(without(&[]), without(&[1]));
        let message = fuse(&mut adapters, ["a", "b"]).unwrap_err();
        for expected in ["`Fuse(a, b)`", "last adapter, `b`", "layer 1, where `a` is"] {
            assert!(message.contains(expected), "{expected}\nis not in\n{message}");
        }
        assert!(adapters.adapters.fusions.is_empty());
        fuse(&mut adapters, ["b", "a"]).unwrap();
        let mut adapters = model(without(&[]), BottleneckConfig::houlsby(2.0));
        let message = fuse(&mut adapters, ["a", "b"]).unwrap_err();
        assert!(message.contains("not at the same places (`mh_adapter`"), "{message}");
    }

    #[test]
    fn a_fusion_over_a_stack_that_is_not_where_its_last_adapter_is_is_refused() {
        // Layers that are left out of `x`, `a` and `b`.
        for (layers, is_refused) in [
            ([&[1][..], &[1], &[]], true),
            ([&[1], &[], &[]], false),
            ([&[], &[1], &[]], false),
            // Where there is none, nothing is fused.
            ([&[1], &[1], &[1]], false),
        ] {
            let [x, a, b] = layers.map(without);
            // Where a `Fuse` has no adapter, neither has the rest of the setup.
            let ko = b.clone();
            let mut model = model(a, b);
            for (name, config) in [("ko", ko), ("x", x)] {
                model.add_adapter(name, &config, 5).unwrap();
            }
            fuse(&mut model, ["a", "b"]).unwrap();
            for setup in ["Fuse(Stack(x, a), b)", "Stack(ko, Fuse(Stack(x, a), b))"] {
                let set = model.set_active(Some(Composition::parse(setup).unwrap()));
                match set {
                    Ok(()) => assert!(!is_refused, "{setup}: {layers:?}"),
                    Err(error) => {
                        let message = error.to_string();
                        assert!(is_refused, "{message}");
                        for expected in
                            [setup, "adapter of `Stack(x, a)`", "`b`, is in: none is in layer 1"]
                        {
                            assert!(message.contains(expected), "{expected}\nis not in\n{message}");
                        }
                        assert_eq!(model.adapters.active(), None);
                    }
                }
            }
        }
    }

    /// adapters 1.3.0 says `KeyError: 'b'` in the forward pass of each that is refused.
    #[test]
    fn a_setup_with_an_adapter_where_the_last_of_its_fusion_is_not_is_refused() {
        let houlsby = || BottleneckConfig::houlsby(2.0);
        let everywhere = || without(&[]);
        for (setup, other, fused, place) in [
            ("Stack(x, Fuse(a, b))", houlsby(), everywhere(), Some("attention of layer 0")),
            ("Stack(Fuse(a, b), x)", houlsby(), everywhere(), Some("attention of layer 0")),
            ("Fuse(Stack(x, a), b)", houlsby(), everywhere(), Some("attention of layer 0")),
            (
                "Stack(x, Fuse(a, b))",
                everywhere(),
                without(&[1]),
                Some("the feed-forward layer of layer 1"),
            ),
            ("Stack(x, Fuse(a, b))", without(&[1]), everywhere(), None),
            ("Stack(x, Fuse(a, b))", without(&[1]), without(&[1]), None),
        ] {
            let mut model = model(fused.clone(), fused);
            model.add_adapter("x", &other, 5).unwrap();
            fuse(&mut model, ["a", "b"]).unwrap();
            let set = model.set_active(Some(Composition::parse(setup).unwrap()));
            let message = set.err().map(|error| error.to_string());
            assert_eq!(message.is_some(), place.is_some(), "{setup}: {message:?}");
            let (Some(message), Some(place)) = (message, place) else { continue };
            let expected = format!("behind {place} there is `x`, but not `b`");
            for expected in [&format!("`{setup}`: expected the last adapter of `Fuse("), &expected]
            {
                assert!(message.contains(expected.as_str()), "{expected}\nis not in\n{message}");
            }
            assert_eq!(model.adapters.active(), None);
        }
    }

    #[test]
    fn an_invertible_block_that_would_be_empty_is_refused() {
        // Its networks have halves of 8 for their input.
        let mut adapters = model(without(&[]), without(&[]));
        for (reduction_factor, is_refused) in [(4.0, false), (4.5, true), (1e6, true)] {
            let invertible =
                crate::InvertibleConfig { reduction_factor, non_linearity: Activation::Relu };
            let config = BottleneckConfig {
                invertible: Some(invertible),
                ..BottleneckConfig::pfeiffer(2.0)
            };
            match adapters.add_adapter("inv", &config, 0) {
                Ok(()) => assert!(!is_refused, "{reduction_factor}"),
                Err(error) => {
                    let message = error.to_string();
                    assert!(is_refused, "{message}");
                    let expected =
                        "`inv_adapter_reduction_factor`: expected a number from 1e-3 to 4,";
                    assert!(message.starts_with(expected), "{message}");
                    assert!(message.ends_with(&format!("found {reduction_factor:e}")), "{message}");
                }
            }
            adapters.adapters.bottlenecks.truncate(2);
        }
    }
}
