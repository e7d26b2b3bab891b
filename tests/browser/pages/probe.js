// A page of the harness's own tests: it throws when it is asked to.

globalThis.throwLater = (said) => queueMicrotask(() => {
  throw new Error(said);
});
