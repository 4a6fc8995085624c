/** A line of text whose caret stays where it belongs when others change the text. */

import { useLayoutEffect, useRef } from "preact/hooks";
import { splice } from "../drafts";

interface Props {
  class: string;
  label: string;
  placeholder: string;
  value: string;
  change: (value: string) => void;
}

export function Field({ label, value, change, ...more }: Props) {
  const input = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => {
    const field = input.current;
    if (!field || field.value === value) return;
    const { start, end, text } = splice(field.value, value);
    const moved = (at: number | null): number => {
      if (at === null || at <= start) return at ?? 0;
      return at >= end ? at + text.length - (end - start) : start + text.length;
    };
    const caret = [moved(field.selectionStart), moved(field.selectionEnd)] as const;
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
