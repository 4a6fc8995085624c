/** The keyboard: what keys do, and the sheet that tells. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { compose, step } from "../actions";
import { outside } from "../entrance";
import { outbox } from "../outbox";
import { go, route } from "../router";
import { searchBox } from "./list";
import { nextMode } from "./note";

export const sheetOpen = signal(false);
/** Who speaks to the machine, or strikes keys by accident, turns single letters off (WCAG 2.2, 2.1.4). */
const letters = signal(localStorage.getItem("letters") !== "off");

const KEYS: [string, string][] = [
  ["/", "search"],
  ["n", "new note"],
  ["j / k", "next / previous note"],
  ["e", "edit the text"],
  ["v", "write, both, read"],
  ["h", "history"],
  ["Ctrl+S", "save now"],
  ["Esc", "out of a field; back to the list"],
  ["?", "this sheet"],
];

export function Help() {
  const sheet = useRef<HTMLDialogElement>(null);
  const open = sheetOpen.value;
  useEffect(() => {
    if (open) sheet.current?.showModal();
    else sheet.current?.close();
  }, [open]);
  return (
    <dialog
      ref={sheet}
      aria-label="Keys"
      onClose={() => {
        sheetOpen.value = false;
      }}
    >
      <h2>Keys</h2>
      <dl>
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <form method="dialog">
        <label>
          <input
            type="checkbox"
            checked={letters.value}
            onChange={(event) => {
              letters.value = event.currentTarget.checked;
              localStorage.setItem("letters", letters.value ? "on" : "off");
            }}
          />
          Keys without Ctrl
        </label>
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}

/** Whether letters belong to this element. A box to tick takes none, and may keep the focus of a sheet that just closed. */
function takesText(element: HTMLElement): boolean {
  return element.isContentEditable || element.matches("input:not([type=checkbox]), textarea, select, [role=textbox]");
}

export function pressed(event: KeyboardEvent): void {
  if (event.defaultPrevented || outside.value) return;
  const target = event.target as HTMLElement;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") {
    event.preventDefault();
    if (target.closest(".tagfield")) target.blur(); // which takes the tag that is half typed
    outbox.hurry();
    return;
  }
  const typing = takesText(target);
  const here = route.value;
  const asked = document.querySelector("dialog[open]") !== null;
  if (event.key === "Escape" && !asked) {
    if (typing) target.blur();
    else if (here.view !== "home") go(here.view === "history" ? { view: "note", id: here.id } : { view: "home" });
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || asked || !letters.value) return;
  const actions: Record<string, () => void> = {
    "/": () => searchBox.current?.focus(),
    n: compose,
    j: () => step(1),
    k: () => step(-1),
    e: () => document.querySelector<HTMLElement>(".cm-content, textarea.editor")?.focus(),
    v: nextMode,
    h: () => here.view === "note" && go({ view: "history", id: here.id }),
    "?": () => {
      sheetOpen.value = true;
    },
  };
  const action = actions[event.key];
  if (action) {
    event.preventDefault();
    action();
  }
}
