import { effect } from "@preact/signals";
import { render } from "preact";
import { useEffect } from "preact/hooks";
import "./style.css";
import { accounts } from "./account";
import { outside } from "./entrance";
import { start } from "./live";
import { path, route } from "./router";
import { Attempts } from "./views/attempts";
import { Boundary } from "./views/boundary";
import { applyTheme, Bar, Notice } from "./views/chrome";
import { ImportDialog } from "./views/imports";
import { pressed, sheetOpen } from "./views/keys";
import { accountViews, loadAccountViews } from "./views/lazy";
import { Sidebar } from "./views/list";
import { loadEditor, NotePane } from "./views/note";

function Pane() {
  const here = route.value;
  const views = accountViews.value;
  switch (here.view) {
    case "account":
      return accounts.value && views && <views.AccountPane />;
    case "people":
      return accounts.value && views && <views.PeoplePane />;
    case "home":
    case "invite":
      return (
        <section class="pane empty" aria-label="Note">
          <p class="faint">
            Choose a note, or press <kbd>n</kbd> to write one. <kbd>?</kbd> shows all keys.
          </p>
        </section>
      );
    case "trash":
      return views && <views.TrashPane />;
    case "history":
      return views && <views.HistoryPane key={here.id} id={here.id} />;
    default:
      return <NotePane />;
  }
}

function App() {
  const late = sheetOpen.value || route.value.view === "trash" || route.value.view === "history";
  const Help = accountViews.value?.Help;
  const Confirm = accountViews.value?.Confirm;
  useEffect(() => {
    if (late && !accountViews.value) void loadAccountViews();
  }, [late]);
  if (outside.value) {
    const SignIn = accountViews.value?.SignInPane;
    return (
      <>
        <Bar />
        <main id="main">{SignIn && <SignIn />}</main>
        {Help && <Help />}
        <Notice />
      </>
    );
  }
  return (
    <>
      <a class="skip" href="#main">
        To the note
      </a>
      <Bar />
      <Attempts />
      <div class="panes" data-view={route.value.view}>
        <Boundary of="list">
          <Sidebar />
        </Boundary>
        <main id="main" tabIndex={-1}>
          <Boundary of={path(route.value)}>
            <Pane />
          </Boundary>
        </main>
      </div>
      {Help && <Help />}
      {Confirm && <Confirm />}
      <ImportDialog />
      <Notice />
    </>
  );
}

effect(() => {
  if (!("id" in route.value) && route.value.view !== "new") document.title = "Notes";
});
applyTheme();
addEventListener("keydown", pressed);
void loadEditor();
const app = document.getElementById("app") as HTMLElement;
const late = (): void => render(<p class="faint nothing">Waiting for the server…</p>, app);
void start(late).then(() => {
  if (accounts.value) void loadAccountViews();
  render(<App />, app);
});
