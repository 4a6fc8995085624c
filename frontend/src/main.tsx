import { effect } from "@preact/signals";
import { render } from "preact";
import "./style.css";
import { start } from "./live";
import { route } from "./router";
import { applyTheme, Bar, Notice } from "./views/chrome";
import { HistoryPane } from "./views/history";
import { Help, pressed } from "./views/keys";
import { Sidebar } from "./views/list";
import { loadEditor, NotePane } from "./views/note";
import { TrashPane } from "./views/trash";

function Pane() {
  const here = route.value;
  switch (here.view) {
    case "home":
      return (
        <section class="pane empty" aria-label="Note">
          <p class="faint">
            Choose a note, or press <kbd>n</kbd> to write one. <kbd>?</kbd> shows all keys.
          </p>
        </section>
      );
    case "trash":
      return <TrashPane />;
    case "history":
      return <HistoryPane key={here.id} id={here.id} />;
    default:
      return <NotePane />;
  }
}

function App() {
  return (
    <>
      <a class="skip" href="#main">
        To the note
      </a>
      <Bar />
      <div class="panes" data-view={route.value.view}>
        <Sidebar />
        <main id="main" tabIndex={-1}>
          <Pane />
        </main>
      </div>
      <Help />
      <Notice />
    </>
  );
}

effect(() => {
  if (route.value.view === "home" || route.value.view === "trash") document.title = "Notes";
});
applyTheme();
addEventListener("keydown", pressed);
void loadEditor();
void start().then(() => render(<App />, document.getElementById("app") as HTMLElement));
