/** The keyboard: what keys do. */

import { signal } from "@preact/signals";
import { compose, step } from "../actions";
import { isComposing } from "../composing";
import { outside } from "../entrance";
import { outbox } from "../outbox";
import { go, route } from "../router";
import { searchBox } from "./list";
import { nextMode } from "./note";

export const sheetOpen = signal(false);
/** Who speaks to the machine, or strikes keys by accident, turns single letters off (WCAG 2.2, 2.1.4). */
export const letters = signal(localStorage.getItem("letters") !== "off");

/** Whether letters belong to this element. A box to tick takes none, and may keep the focus of a sheet that just closed. */
function takesText(element: HTMLElement): boolean {
  return element.isContentEditable || element.matches("input:not([type=checkbox]), textarea, select, [role=textbox]");
}

export function pressed(event: KeyboardEvent): void {
  if (event.defaultPrevented || outside.value || isComposing(event)) return;
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
