//! Colours, told apart by colour-blind eyes (Okabe and Ito, 2008, "Color Universal Design"), in a
//! light and a dark rendering.
//!
//! plotters knows fixed colours alone. Each stands for a CSS variable, and takes its place in the SVG
//! ([`with_variables`]), so that one rendering serves both schemes.

use plotters::style::RGBColor;

/// A colour: its CSS variable and what it is in the light and in the dark scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Colour {
    variable: &'static str,
    light: RGBColor,
    dark: RGBColor,
}

const fn colour(variable: &'static str, light: u32, dark: u32) -> Colour {
    Colour { variable, light: rgb(light), dark: rgb(dark) }
}

const fn rgb(hex: u32) -> RGBColor {
    RGBColor((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

pub(crate) const PAPER: Colour = colour("paper", 0x00FF_FFFE, 0x0016_171A);
pub(crate) const INK: Colour = colour("ink", 0x001B_1B1F, 0x00E4_E4E2);
pub(crate) const MUTED: Colour = colour("muted", 0x005E_5E63, 0x00A4_A4A2);
pub(crate) const RULE: Colour = colour("rule", 0x00DD_DDD9, 0x003A_3B40);
pub(crate) const VANILLA: Colour = colour("vanilla", 0x0000_72B2, 0x0056_B4E9);
pub(crate) const FUSION: Colour = colour("fusion", 0x00D5_5E00, 0x00F2_8A45);
pub(crate) const LORA: Colour = colour("lora", 0x0000_8A64, 0x002F_C798);
pub(crate) const LORA_SECOND: Colour = colour("lora-second", 0x00A8_4A80, 0x00E0_9AC4);
pub(crate) const LORA_THIRD: Colour = colour("lora-third", 0x009A_6F00, 0x00E6_BC3C);
pub(crate) const OTHER: Colour = colour("other", 0x005A_4FCF, 0x00A9_A2FF);
pub(crate) const ADAPTER: Colour = colour("adapter", 0x006B_3A12, 0x00C6_9C7A);
pub(crate) const BASELINE: Colour = colour("baseline", 0x002A_2A30, 0x00ED_EDEA);

/// Those of methods.
pub(crate) const SERIES: [Colour; 8] =
    [VANILLA, FUSION, LORA, LORA_SECOND, LORA_THIRD, OTHER, ADAPTER, BASELINE];

const GROUND: [Colour; 4] = [PAPER, INK, MUTED, RULE];

fn all() -> impl Iterator<Item = Colour> {
    GROUND.into_iter().chain(SERIES)
}

impl Colour {
    /// As plotters draws it.
    pub(crate) fn rgb(self) -> RGBColor {
        self.light
    }

    /// As CSS names it.
    pub(crate) fn css(self) -> String {
        format!("var(--{})", self.variable)
    }
}

/// Puts CSS variables in the place of the colours that plotters drew; a viewer that knows no
/// variables shows the light scheme.
pub(crate) fn with_variables(svg: &str) -> String {
    all().fold(svg.to_owned(), |svg, colour| {
        let hex = hex(colour.light);
        svg.replace(&format!("\"{hex}\""), &format!("\"var(--{}, {hex})\"", colour.variable))
    })
}

/// The style sheet that gives the variables their values.
pub(crate) fn style_sheet() -> String {
    let scheme = |value: fn(&Colour) -> RGBColor| {
        let values = all().map(|colour| format!("--{}:{};", colour.variable, hex(value(&colour))));
        values.collect::<String>()
    };
    let (light, dark) = (scheme(|colour| colour.light), scheme(|colour| colour.dark));
    format!(
        ":root{{color-scheme:light dark;{light}}}\
         @media (prefers-color-scheme:dark){{@media not print{{:root{{{dark}}}}}}}"
    )
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(RGBColor(red, green, blue): RGBColor) -> [f64; 3] {
        [red, green, blue].map(|channel| {
            let share = f64::from(channel) / 255.0;
            if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        })
    }

    /// Relative luminance, WCAG 2.2.
    fn luminance(colour: RGBColor) -> f64 {
        let [red, green, blue] = linear(colour);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    fn contrast(a: RGBColor, b: RGBColor) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_and_marks_are_legible_in_both_schemes() {
        for colour in [INK, MUTED] {
            assert!(contrast(colour.light, PAPER.light) > 4.5, "{colour:?}");
            assert!(contrast(colour.dark, PAPER.dark) > 4.5, "{colour:?}");
        }
        for colour in SERIES {
            assert!(contrast(colour.light, PAPER.light) > 3.0, "{colour:?}");
            assert!(contrast(colour.dark, PAPER.dark) > 3.0, "{colour:?}");
        }
    }

    fn times(matrix: [[f64; 3]; 3], vector: [f64; 3]) -> [f64; 3] {
        matrix.map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum())
    }

    /// CIELAB of a colour as an eye sees it that `sight` stands for.
    fn seen(sight: [[f64; 3]; 3], colour: RGBColor) -> [f64; 3] {
        const XYZ: [[f64; 3]; 3] =
            [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]];
        const WHITE: [f64; 3] = [0.9505, 1.0, 1.089];
        let rgb = times(sight, linear(colour)).map(|channel| channel.clamp(0.0, 1.0));
        let xyz = times(XYZ, rgb);
        let [x, y, z] = [0, 1, 2].map(|index| {
            let share = xyz[index] / WHITE[index];
            if share > 0.008_856 { share.cbrt() } else { 7.787 * share + 16.0 / 116.0 }
        });
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    /// Machado, Oliveira and Fernandes (2009), "A Physiologically-based Model for Simulation of Color
    /// Vision Deficiency", severity 1.0: protanopia, deuteranopia, tritanopia.
    const DEFICIENT: [[[f64; 3]; 3]; 3] = [
        [
            [0.152_286, 1.052_583, -0.204_868],
            [0.114_503, 0.786_281, 0.099_216],
            [-0.003_882, -0.048_116, 1.051_998],
        ],
        [
            [0.367_322, 0.860_646, -0.227_968],
            [0.280_085, 0.672_501, 0.047_413],
            [-0.011_820, 0.042_940, 0.968_881],
        ],
        [
            [1.255_528, -0.076_749, -0.178_779],
            [-0.078_411, 0.930_809, 0.147_602],
            [0.004_733, 0.691_367, 0.303_900],
        ],
    ];

    #[test]
    fn the_baseline_is_told_from_every_method_by_colour_blind_eyes() {
        for (sight, method) in
            DEFICIENT.into_iter().flat_map(|sight| SERIES.map(|method| (sight, method)))
        {
            if method == BASELINE {
                continue;
            }
            for rendering in [|colour: Colour| colour.light, |colour: Colour| colour.dark] {
                let [a, b] = [method, BASELINE].map(|colour| seen(sight, rendering(colour)));
                let distance = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                assert!(distance > 20.0, "{method:?}: {distance:.1}");
            }
        }
    }

    #[test]
    fn every_colour_becomes_a_variable() {
        let svg = with_variables("<path stroke=\"#0072B2\" fill=\"#1B1B1F\"/>");
        assert_eq!(svg, "<path stroke=\"var(--vanilla, #0072B2)\" fill=\"var(--ink, #1B1B1F)\"/>");
        assert!(style_sheet().contains("--vanilla:#56B4E9"));
    }
}
