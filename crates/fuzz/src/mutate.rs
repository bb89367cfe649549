//! Inputs that look a little like good ones, the same on every run with the same seed.

/// The longest input in bytes: more than any length that matters but that of a frame, which its
/// first four bytes can claim.
const LONGEST: usize = 32 * 1024;

/// The most inputs to change further.
const MOST: usize = 4096;

/// What may stand in place of a number: ends of ranges, and what lies beyond them.
const NUMBERS: [&[u8]; 8] = [
    b"0",
    b"1",
    b"7",
    b"65536",
    b"4294967295",
    b"4294967296",
    b"18446744073709551616",
    b"-1",
];

/// Numbers that look like chance: xorshift64*.
struct Numbers(u64);

impl Numbers {
    /// One below `most`, which is not 0.
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % most
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A range of at most `most` bytes within a length.
    fn range(&mut self, length: usize, most: usize) -> std::ops::Range<usize> {
        let begin = self.below(length + 1);
        let end = begin + self.below(most.min(length - begin) + 1);
        begin..end
    }
}

/// Makes inputs out of others.
pub(crate) struct Mutator {
    numbers: Numbers,
    inputs: Vec<Vec<u8>>,
    /// How many of them were there at the beginning.
    seeds: usize,
    words: &'static [&'static [u8]],
}

impl Mutator {
    /// `inputs` and `words` are not empty.
    pub(crate) fn new(seed: u64, inputs: Vec<Vec<u8>>, words: &'static [&'static [u8]]) -> Self {
        // Seeds that differ in one bit begin far apart, and none is 0.
        let numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self {
            numbers,
            seeds: inputs.len(),
            inputs,
            words,
        }
    }

    /// The next input.
    pub(crate) fn make(&mut self) -> Vec<u8> {
        // Of those that came later most are broken somewhere, so they do not crowd out the good ones.
        let most = match self.numbers.below(2) {
            0 => self.seeds,
            _ => self.inputs.len(),
        };
        let mut input = self.numbers.one(&self.inputs[..most]).clone();
        // Mostly one change, since two often break what one would have shown.
        for _ in 0..=self.numbers.below(8).saturating_sub(4) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    /// Adds an input to those that are changed further.
    pub(crate) fn keep(&mut self, input: Vec<u8>) {
        if self.inputs.len() < MOST {
            self.inputs.push(input);
        }
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let numbers = &mut self.numbers;
        let at = numbers.below(input.len() + 1);
        match numbers.below(10) {
            0 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            1 if at < input.len() => input[at] = numbers.byte(),
            0..=2 => input.insert(at, numbers.byte()),
            3 | 4 => {
                let word = *numbers.one(self.words);
                let end = match numbers.below(2) {
                    0 => at,
                    _ => input.len().min(at + word.len()),
                };
                input.splice(at..end, word.iter().copied());
            }
            5 => drop(input.drain(numbers.range(input.len(), 16))),
            6 => {
                // Seldom often: what is slow or deep takes many of the same.
                let times = match numbers.below(32) {
                    0 => numbers.below(4096),
                    _ => numbers.below(4),
                };
                let piece = input[numbers.range(input.len(), 12)].repeat(times);
                input.splice(at..at, piece);
            }
            7 => {
                let other = numbers.one(&self.inputs);
                let piece = numbers.range(other.len(), other.len());
                let place = numbers.range(input.len(), piece.len());
                input.splice(place, other[piece].iter().copied());
            }
            8 => {
                let is_digit = |byte: &&u8| byte.is_ascii_digit();
                let others = input[at..].iter().take_while(|byte| !is_digit(byte));
                let begin = at + others.count();
                let end = begin + input[begin..].iter().take_while(is_digit).count();
                if begin < end {
                    input.splice(begin..end, numbers.one(&NUMBERS).iter().copied());
                }
            }
            _ => {
                // The beginning of one and the end of another.
                let other = numbers.one(&self.inputs);
                let from = numbers.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
        }
    }
}
