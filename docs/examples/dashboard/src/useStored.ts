// A text that this tab remembers over a reload.
import { useState } from "react";

export function useStored(key: string, atFirst: string): [string, (value: string) => void] {
  const [value, setValue] = useState(() => sessionStorage.getItem(key) ?? atFirst);
  function store(next: string) {
    setValue(next);
    sessionStorage.setItem(key, next);
  }
  return [value, store];
}
