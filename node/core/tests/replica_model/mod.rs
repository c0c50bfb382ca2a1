//! A naive model of replicated tables, written from the rules and not from the code, and a naive cluster to run either
//! in: the table must agree with the model, and both must keep what the rules promise.
#![allow(dead_code)] // each test uses a part
#![allow(clippy::disallowed_methods, clippy::print_stderr)] // seeds come from the environment and go to the console

pub mod cluster;
pub mod histories;
pub mod merge;
pub mod node;
pub mod op;
pub mod real;
pub mod row;
pub mod window;

/// A small generator of its own: the same seed is the same history on every machine, for ever.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }
    pub fn roll(&mut self, below: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }
    pub fn percent(&mut self, chance: u64) -> bool {
        self.roll(100) < chance
    }
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len() as u64) as usize]
    }
}

/// Runs `history` for many seeds, or for the one in `REMORA_SEED`; a failure names its seed.
pub fn run(name: &str, count: u64, history: impl Fn(u64) -> Result<(), String>) {
    let replay = std::env::var("REMORA_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let many = std::env::var("REMORA_HISTORIES")
        .ok()
        .and_then(|s| s.parse().ok());
    let seeds = match replay {
        Some(seed) => seed..seed + 1,
        None => 0..many.unwrap_or(count),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history(seed)));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => panic!("{name}: REMORA_SEED={seed}: {problem}"),
            Err(panic) => {
                eprintln!("{name}: REMORA_SEED={seed} panicked");
                std::panic::resume_unwind(panic);
            }
        }
    }
}
