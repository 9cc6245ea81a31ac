mod forward;

use burn::module::Module;
use nsmc_bert::Init;

use crate::composition::{check_name, fusion_name};
use crate::{
    AdapterFusion, BottleneckAdapter, BottleneckConfig, Composition, FusionConfig, Lora,
    NiceCouplingBlock, PeftError,
};

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
        config.check_layers(size.num_hidden_layers)?;
        if self.adapter(name).is_some() {
            return Err(PeftError::Taken(name.into()));
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
        let places = |config: &BottleneckConfig| {
            (config.mh_adapter, config.output_adapter, config.leave_out.clone())
        };
        let first = &fused[0].config;
        if let Some(other) = fused.iter().find(|other| places(&other.config) != places(first)) {
            return error(format!(
                "the adapters `{}` and `{}` are not at the same places (`mh_adapter`, \
                 `output_adapter`, `leave_out`), so that they cannot be fused",
                fused[0].name, other.name
            ));
        }
        let name = fusion_name(children);
        if self.fusion(&name).is_some() {
            return Err(PeftError::Taken(name));
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
        }
        self.active = active;
        Ok(())
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
