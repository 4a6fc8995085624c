/** A line of text whose caret stays where it belongs when others change the text. */

import { diffIndices } from "node-diff3";
import { useLayoutEffect, useRef } from "preact/hooks";

interface Props {
  class: string;
  label: string;
  placeholder: string;
  value: string;
  readOnly: boolean;
  change: (value: string) => void;
}

export function Field({ label, value, change, ...more }: Props) {
  const input = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => {
    const field = input.current;
    if (!field || field.value === value) return;
    const differences = diffIndices(field.value.split(""), value.split(""));
    const moved = (at: number): number => {
      const before = differences.findLast(({ buffer1: [start] }) => start < at);
      if (!before) return at;
      const { buffer1, buffer2 } = before;
      return Math.max(0, at - buffer1[0] - buffer1[1]) + buffer2[0] + buffer2[1];
    };
    const caret = [moved(field.selectionStart ?? 0), moved(field.selectionEnd ?? 0)] as const;
    field.value = value;
    if (document.activeElement === field) field.setSelectionRange(...caret);
  }, [value]);
  return (
    <input
      {...more}
      ref={input}
      aria-label={label}
      maxLength={100}
      onInput={(event) => change(event.currentTarget.value)}
    />
  );
}
