/** Signing in, and up: all that somebody sees whom the server does not know, and who has to be known. */

import { useEffect, useRef, useState } from "preact/hooks";
import { asked, ended, found, me, user } from "../account";
import * as api from "../api";
import * as fragment from "../fragment";
import { invite, setup } from "../fragment";
import { light } from "../light";
import { current, missing } from "../opened";
import { go, route } from "../router";
import { NewPassword, Password } from "./password";

export function SignInPane() {
  const { sign_up } = me.value;
  const first = setup.value !== "";
  const back = ended.value ? (user.value?.name ?? "") : "";
  const may = !back && (first || sign_up !== "closed");
  const [fresh, setFresh] = useState(may && invite.value !== "");
  const [name, setName] = useState(back);
  const [password, setPassword] = useState("");
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const form = useRef<HTMLFormElement>(null);

  useEffect(() => {
    document.title = "Sign in – Notes";
    form.current?.querySelector<HTMLElement>(back ? "[type=password]" : "input")?.focus();
  }, []);

  useEffect(() => {
    if (first && may) setFresh(true); // the address may bring it later
  }, [first]);

  const submit = async (): Promise<void> => {
    const wrong = fresh ? problem(name, password) : "";
    setError(wrong);
    if (wrong || busy) return;
    setBusy(true);
    try {
      const account = { name, password, invite: invite.value.trim() || null, setup: setup.value || null };
      const now = await (fresh ? api.signUp(account) : api.signIn(name, password));
      setup.value = "";
      if (route.value.view === "invite") go({ view: "home" }, true);
      found(now);
    } catch (failed) {
      setError(failed instanceof Error ? failed.message : String(failed));
      setBusy(false);
    }
  };

  return (
    <section class="pane entrance" aria-label={fresh ? "Sign up" : "Sign in"}>
      <form
        ref={form}
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <h1>{fresh ? "Make an account" : "Sign in"}</h1>
        <Why />
        {fresh && first && <p>This is the account of the first administrator.</p>}
        <label>
          Name
          <input
            name="username"
            autocomplete="username"
            autocapitalize="none"
            spellcheck={false}
            value={name}
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
        {fresh ? (
          <NewPassword label="Password" value={password} change={setPassword} />
        ) : (
          <Password label="Password" value={password} change={setPassword} />
        )}
        {fresh && !first && sign_up === "invite" && (
          <label>
            Invite
            <input
              autocomplete="off"
              spellcheck={false}
              value={invite.value}
              onInput={(event) => {
                invite.value = event.currentTarget.value;
              }}
            />
          </label>
        )}
        {error && (
          <p class="alert" role="alert">
            {error}
          </p>
        )}
        <button type="submit" class="primary" disabled={busy}>
          {fresh ? "Sign up" : "Sign in"}
        </button>
        {busy && (
          <p class="faint" role="status">
            One moment…
          </p>
        )}
        {may && (
          <button
            type="button"
            class="plain"
            onClick={() => {
              setFresh(!fresh);
              setError("");
            }}
          >
            {fresh ? "I have an account" : "Make an account"}
          </button>
        )}
        {!may && !back && <p class="faint">No account? Whoever runs this server adds people.</p>}
        {asked.value && current() !== null && !missing.value && (
          <button
            type="button"
            class="plain"
            onClick={() => {
              asked.value = false;
            }}
          >
            Back to the note
          </button>
        )}
      </form>
    </section>
  );
}

/** Why one is here, if one was elsewhere. */
function Why() {
  const now = light.value;
  if (ended.value) {
    const words =
      "waiting" in now && now.waiting ? " What you typed is kept in this browser, and sent once you are back." : "";
    return <p role="status">You are signed out here. Sign in to go on.{words}</p>;
  }
  if (fragment.dead.value) return <p role="status">This link opens nothing any more.</p>;
  if (current() !== null && missing.value)
    return <p role="status">This note is not there for everyone. It may be shared with you.</p>;
  return null;
}

function problem(name: string, password: string): string {
  if (!/^[a-z0-9][a-z0-9._-]{1,31}$/i.test(name))
    return "A name has 2 to 32 letters a–z, digits, dots, hyphens or underscores, and begins with a letter or digit";
  return [...password].length < 15 ? "A password has at least 15 characters; a few words will do" : "";
}
