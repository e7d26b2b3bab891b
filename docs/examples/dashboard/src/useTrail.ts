// The last values that something had while it was on the page, oldest first.
import { useState } from "react";

interface Trail<T> {
  key: string;
  newest: T | null;
  values: T[];
}

/** At most `length` values; another `key` begins anew. */
export function useTrail<T>(value: T | null, length: number, key: string): T[] {
  const [trail, setTrail] = useState<Trail<T>>({ key, newest: null, values: [] });
  if (trail.key !== key || trail.newest !== value) {
    const before = trail.key === key ? trail.values : [];
    const values = value === null ? before : [...before, value].slice(-length);
    const next = { key, newest: value, values };
    setTrail(next);
    return next.values;
  }
  return trail.values;
}
