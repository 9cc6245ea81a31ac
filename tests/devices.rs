use crate::world::World;

/// The CPU beside itself: every method is there, and nothing is off.
#[test]
fn a_device_is_checked_against_the_cpu() {
    let world = World::new();
    world.write("lengths.txt", "5 9 3\n12 4 7\n");
    let check = ["check-device", "--device", "cpu", "--lengths", "lengths.txt", "--steps", "2"];
    let ran = world.nsmc(&check);
    assert!(ran.success, "{}", ran.stderr);
    let lines: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let methods: Vec<&str> = lines.iter().map(|line| line["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["vanilla", "lora", "adapter", "adapterfusion"]);
    for line in &lines {
        for figure in ["logits", "gradients", "worst_gradient", "loss"] {
            assert_eq!(line[figure], 0.0, "{line}");
        }
        assert!(line["last_loss"].as_f64().unwrap() > 0.0, "{line}");
    }

    let ran = world.nsmc(&[&check[..], &["--precision", "bf16"]].concat());
    assert!(!ran.success && ran.stderr.contains("GPUs alone"), "{}", ran.stderr);
}
