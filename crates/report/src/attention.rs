//! What fusions attend to.

use std::collections::BTreeSet;

use nsmc_eval::Words;
use nsmc_eval::study::Study;
use nsmc_experiment::{FusionAttention, FusionPlace, MethodKind};

use crate::figures::{Figure, largest, mean, panels};
use crate::look::{another, usual};
use crate::plot::{Look, Plot, Point, Series};
use crate::words::words;

/// How much fusions attend to their adapters, layer by layer, at the largest size.
pub(crate) fn fusion_attention(study: &Study) -> Vec<Figure> {
    attention_plots(study).into_iter().map(|(name, plot)| plot.figure(name)).collect()
}

/// One per list of adapters that is fused, and place that it is fused at: a model may have a fusion after
/// both sub-layers of a layer, which attend each in their own way.
fn attention_plots(study: &Study) -> Vec<(String, Plot)> {
    let mut plots = Vec::new();
    for panel in panels(study) {
        let entries: Vec<&FusionAttention> = largest(&panel.cells)
            .iter()
            .flat_map(|cell| cell.finished())
            .flat_map(|run| &run.fusion_attention)
            .collect();
        let mut lists: Vec<(&[String], FusionPlace)> = Vec::new();
        for FusionAttention { adapters, place, .. } in &entries {
            if !lists.contains(&(adapters, *place)) {
                lists.push((adapters, *place));
            }
        }
        for (index, &(adapters, place)) in lists.iter().enumerate() {
            let of_list =
                |entry: &&FusionAttention| (&*entry.adapters, entry.place) == (adapters, place);
            let of_list: Vec<&FusionAttention> = entries.iter().copied().filter(of_list).collect();
            let fused = format!("Fuse({})", adapters.join(", "));
            let places = lists.iter().filter(|(other, _)| *other == adapters).count();
            let place = if places > 1 { after(place) } else { words("", "") };
            let title = words(
                format!("{}: {fused}{}", panel.title.en, place.en),
                format!("{}: {fused}{}", panel.title.ko, place.ko),
            );
            let further = if index == 0 { String::new() } else { format!("-{}", index + 1) };
            let plot = attention_plot(title, adapters, &of_list);
            plots.push((format!("attention-{}{further}", panel.name), plot));
        }
    }
    plots
}

/// After which sub-layer a fusion stands, as the end of a title.
fn after(place: FusionPlace) -> Words {
    match place {
        FusionPlace::Attention => words(", after attention", ", 어텐션 뒤"),
        FusionPlace::Output => words(", after the feed-forward layer", ", 피드포워드 층 뒤"),
    }
}

fn attention_plot(title: Words, adapters: &[String], entries: &[&FusionAttention]) -> Plot {
    let layers: BTreeSet<usize> = entries.iter().map(|entry| entry.layer).collect();
    // Of two adapters the second has what the first leaves.
    let drawn = if adapters.len() == 2 { &adapters[..1] } else { adapters };
    // Vanilla's colour would mislead: it has no adapters.
    let mut taken: Vec<Look> = vec![usual(MethodKind::Vanilla, None)];
    let mut series = Vec::new();
    for (index, adapter) in drawn.iter().enumerate() {
        for first_token in [false, true] {
            let points = layers.iter().filter_map(|&layer| {
                let of_layer = entries.iter().filter(|entry| entry.layer == layer);
                let weights = of_layer.map(|entry| {
                    if first_token { entry.mean_first_token[index] } else { entry.mean[index] }
                });
                let y = mean(&weights.collect::<Vec<_>>())?;
                Some(Point { x: (layer + 1) as f64, y, interval: None })
            });
            let tokens = if first_token {
                words("the first token", "첫 토큰")
            } else {
                words("all tokens", "모든 토큰")
            };
            series.push(Series {
                name: words(
                    format!("{adapter}, {}", tokens.en),
                    format!("{adapter}, {}", tokens.ko),
                ),
                look: another(&mut taken),
                points: points.collect(),
            });
        }
    }
    let last = layers.last().map_or(1, |layer| layer + 1);
    Plot {
        title,
        x_title: words("layer", "층"),
        y_title: words("mean attention", "평균 어텐션 가중치"),
        x_marks: (1..=last).map(|layer| (layer as f64, layer.to_string())).collect(),
        x: 0.6..last as f64 + 0.4,
        y: -0.02..1.02,
        series,
        diagonal: false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use nsmc_experiment::{ExperimentConfig, MethodConfig};

    use super::*;
    use crate::fabricated;

    /// A fusion with another adapter in the middle.
    pub(crate) fn fusion_of_three(config: ExperimentConfig) -> ExperimentConfig {
        let mut config = fabricated::fusion(config);
        if let MethodConfig::AdapterFusion(fusion) = &mut config.method {
            fusion.setup = "Fuse(ko, stars, nsmc)".into();
        }
        config
    }

    #[test]
    fn each_list_of_fused_adapters_has_a_plot_of_all_that_cannot_be_told_from_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let config = |seed| fabricated::config("tuned", 1000, seed);
        for seed in [0, 1] {
            fabricated::run(folder.path(), &config(seed), 0.8, 1.0);
            fabricated::run(folder.path(), &fabricated::fusion(config(seed)), 0.8, 1.0);
            let three = fusion_of_three(config(seed));
            fabricated::run(folder.path(), &three, 0.8, 1.0);
            let more = 0.1 * seed as f64;
            let layer = |layer: usize| FusionAttention {
                adapters: ["ko", "stars", "nsmc"].map(str::to_owned).into(),
                layer,
                place: FusionPlace::Output,
                mean: vec![0.2 + more, 0.3, 0.5 - more],
                mean_first_token: vec![0.6, 0.4 - more, more],
            };
            let path = folder.path().join(three.run_id()).join("fusion_attention.json");
            fs_err::write(path, serde_json::to_string(&[layer(0), layer(1)]).unwrap()).unwrap();
        }
        let study = Study::read_runs(folder.path(), None).unwrap();
        let plots = attention_plots(&study);
        let found: Vec<(&str, &str, usize)> = plots
            .iter()
            .map(|(name, plot)| (name.as_str(), plot.title.en.as_str(), plot.series.len()))
            .collect();
        let (two, three) = ("Fuse(ko, nsmc)", "Fuse(ko, stars, nsmc)");
        let title = |fused: &str| format!("The tuned recipe: {fused}");
        let expected = [("attention-1", &*title(two), 2), ("attention-1-2", &*title(three), 6)];
        assert_eq!(found, expected);
        let weights = |plot: &Plot| -> Vec<(String, Vec<f64>)> {
            let rounded = |point: &Point| (point.y * 1000.0).round() / 1000.0;
            let of = |series: &Series| series.points.iter().map(rounded).collect();
            plot.series.iter().map(|series| (series.name.en.clone(), of(series))).collect()
        };
        let [first, second] = [&plots[0].1, &plots[1].1].map(weights);
        assert_eq!(first[0], ("ko, all tokens".into(), vec![0.2, 0.25, 0.3, 0.35]));
        assert_eq!(first[1], ("ko, the first token".into(), vec![0.9, 0.7, 0.5, 0.3]));
        let expected = [
            ("ko, all tokens", 0.25),
            ("ko, the first token", 0.6),
            ("stars, all tokens", 0.3),
            ("stars, the first token", 0.35),
            ("nsmc, all tokens", 0.45),
            ("nsmc, the first token", 0.05),
        ];
        let expected = expected.map(|(name, weight)| (name.to_owned(), vec![weight; 2]));
        assert_eq!(second, expected);
        let looks: Vec<Look> = plots[1].1.series.iter().map(|series| series.look).collect();
        for (index, look) in looks.iter().enumerate() {
            assert!(!looks[..index].contains(look), "{look:?}");
        }
    }

    #[test]
    fn what_stands_after_attention_is_not_averaged_with_what_stands_after_the_feed_forward_layer() {
        let folder = tempfile::tempdir().unwrap();
        let config = fabricated::config("tuned", 1000, 0);
        let fusion = fabricated::fusion(config.clone());
        fabricated::run(folder.path(), &config, 0.8, 1.0);
        fabricated::run(folder.path(), &fusion, 0.8, 1.0);
        let entry = |layer: usize, place: FusionPlace, ko: f64| FusionAttention {
            adapters: ["ko", "nsmc"].map(str::to_owned).into(),
            layer,
            place,
            mean: vec![ko, 1.0 - ko],
            mean_first_token: vec![ko, 1.0 - ko],
        };
        let entries = [0, 1].map(|layer| {
            [entry(layer, FusionPlace::Attention, 0.9), entry(layer, FusionPlace::Output, 0.1)]
        });
        let path = folder.path().join(fusion.run_id()).join("fusion_attention.json");
        fs_err::write(path, serde_json::to_string(&entries.concat()).unwrap()).unwrap();
        let plots = attention_plots(&Study::read_runs(folder.path(), None).unwrap());
        let found: Vec<(&str, &str, f64)> = plots
            .iter()
            .map(|(name, plot)| (&**name, &*plot.title.en, plot.series[0].points[1].y))
            .collect();
        let expected = [
            ("attention-1", "The tuned recipe: Fuse(ko, nsmc), after attention", 0.9),
            (
                "attention-1-2",
                "The tuned recipe: Fuse(ko, nsmc), after the feed-forward layer",
                0.1,
            ),
        ];
        assert_eq!(found, expected);
        assert!(plots[1].1.title.ko.ends_with("Fuse(ko, nsmc), 피드포워드 층 뒤"));
    }
}
