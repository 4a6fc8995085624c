/** Input methods, with which Japanese, Chinese and Korean are typed. */

/** Whether a key belongs to an input method: its Enter confirms a word, and does nothing else (code 229 is Safari's). */
export const isComposing = (event: KeyboardEvent): boolean => event.isComposing || event.keyCode === 229;
