/**
 * Other people's carets and selections in the text.
 *
 * In place of y-codemirror's own: that sets style attributes, which the page's policy forbids. Colours are classes here.
 */

import { Annotation, type Extension, type Range, RangeSet } from "@codemirror/state";
import {
  Decoration,
  type DecorationSet,
  type EditorView,
  type PluginValue,
  ViewPlugin,
  type ViewUpdate,
  WidgetType,
} from "@codemirror/view";
import * as Y from "yjs";
import { HUES } from "../people";
import type { Room } from "../room";

const moved = Annotation.define<boolean>();

class Caret extends WidgetType {
  constructor(
    readonly name: string,
    readonly hue: number,
  ) {
    super();
  }

  override eq(other: Caret): boolean {
    return other.name === this.name && other.hue === this.hue;
  }

  toDOM(): HTMLElement {
    const caret = document.createElement("span");
    caret.className = `caret hue-${this.hue}`;
    caret.setAttribute("aria-hidden", "true");
    caret.dataset.name = this.name; // shown by the style: it is no part of the text
    return caret;
  }
}

class Cursors implements PluginValue {
  decorations: DecorationSet = RangeSet.empty;
  readonly #listen;

  constructor(
    view: EditorView,
    private readonly room: Room,
  ) {
    const { awareness } = room;
    this.#listen = ({ added, updated, removed }: Record<"added" | "updated" | "removed", number[]>): void => {
      const others = [...added, ...updated, ...removed].some((client) => client !== awareness.doc.clientID);
      if (others) view.dispatch({ annotations: moved.of(true) });
    };
    awareness.on("change", this.#listen);
  }

  destroy(): void {
    this.room.awareness.off("change", this.#listen);
  }

  update(update: ViewUpdate): void {
    if (update.docChanged || update.selectionSet || update.focusChanged) this.#tell(update.view);
    const found: Range<Decoration>[] = [];
    for (const [client, state] of this.room.awareness.getStates() as Map<number, Record<string, unknown>>) {
      if (client !== this.room.awareness.doc.clientID) found.push(...this.#shown(state, update.state.doc.length));
    }
    this.decorations = Decoration.set(found, true);
  }

  /** Tells the others where the selection is, while the editor has the focus. */
  #tell(view: EditorView): void {
    const { awareness, text } = this.room;
    const before =
      (awareness.getLocalState() as { cursor?: { anchor: unknown; head: unknown } } | null)?.cursor ?? null;
    if (!view.hasFocus) {
      if (before) awareness.setLocalStateField("cursor", null);
      return;
    }
    const { anchor, head } = view.state.selection.main;
    const place = (index: number): Y.RelativePosition => Y.createRelativePositionFromTypeIndex(text, index);
    const now = { anchor: place(anchor), head: place(head) };
    if (JSON.stringify(before) !== JSON.stringify(now)) awareness.setLocalStateField("cursor", now);
  }

  #shown(state: Record<string, unknown>, length: number): Range<Decoration>[] {
    const { text, doc } = this.room;
    const cursor = state.cursor as { anchor?: unknown; head?: unknown } | null | undefined;
    const user = (state.user ?? {}) as { name?: unknown; hue?: unknown };
    const index = (place: unknown): number | null => {
      try {
        const found = Y.createAbsolutePositionFromRelativePosition(Y.createRelativePositionFromJSON(place), doc);
        return found?.type === text && found.index <= length ? found.index : null;
      } catch {
        return null; // what others say of themselves may be anything
      }
    };
    const [anchor, head] = cursor ? [index(cursor.anchor), index(cursor.head)] : [null, null];
    if (anchor === null || head === null) return [];
    const name = typeof user.name === "string" ? user.name.slice(0, 40) : "Somebody";
    const hue = Math.abs(Math.trunc(Number(user.hue) || 0)) % HUES;
    const caret = Decoration.widget({ widget: new Caret(name, hue), side: head > anchor ? -1 : 1 }).range(head);
    if (anchor === head) return [caret];
    const [from, to] = [Math.min(anchor, head), Math.max(anchor, head)];
    return [Decoration.mark({ class: `selected hue-${hue}` }).range(from, to), caret];
  }
}

export const cursors = (room: Room): Extension =>
  ViewPlugin.define((view) => new Cursors(view, room), { decorations: (plugin) => plugin.decorations });
