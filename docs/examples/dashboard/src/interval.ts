// How sure a rate is: the Wilson score interval at 95 %, which also holds for few counts.
const Z = 1.959964;

export interface Interval {
  low: number;
  rate: number;
  high: number;
}

export function wilson(hits: number, trials: number): Interval {
  if (trials <= 0) return { low: 0, rate: 0, high: 1 };
  const rate = hits / trials;
  const scale = 1 + Z ** 2 / trials;
  const middle = (rate + Z ** 2 / (2 * trials)) / scale;
  const reach = (Z * Math.sqrt((rate * (1 - rate)) / trials + Z ** 2 / (4 * trials ** 2))) / scale;
  return { low: Math.max(0, middle - reach), rate, high: Math.min(1, middle + reach) };
}
