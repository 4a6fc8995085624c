/** One's own account: where one is signed in, the tokens of one's programs, the password. */

import { useEffect, useState } from "preact/hooks";
import { me, user } from "../account";
import { deleteOwnAccount, signOut } from "../actions";
import * as api from "../api";
import { complain, say } from "../notices";
import type { NewToken, SignIn, Token } from "../types";
import { Report } from "./attempts";
import { DeletionDialog } from "./deletion";
import { ago } from "./list";
import { Back } from "./note";
import { NewPassword, Password } from "./password";
import { Secret } from "./secret";

export function AccountPane() {
  const [changes, setChanges] = useState(0);
  useEffect(() => {
    document.title = "Your account – Notes";
  }, []);
  return (
    <section class="pane account" aria-label="Your account">
      <header class="tools">
        <Back />
        <h1>Your account: {user.value?.name}</h1>
        <button type="button" onClick={() => void signOut()}>
          Sign out
        </button>
      </header>
      <FailedSignIns />
      <Sessions key={`sessions-${changes}`} />
      <Tokens key={`tokens-${changes}`} />
      <ChangePassword changed={() => setChanges(changes + 1)} />
      <DeleteAccount />
    </section>
  );
}

function FailedSignIns() {
  if (!me.value.failed_sign_ins) return null;
  return (
    <section aria-labelledby="failed">
      <h2 id="failed">Failed sign-in attempts</h2>
      <p>
        <Report />. If it was not you, somebody may be guessing your password.
      </p>
    </section>
  );
}

function Sessions() {
  const [found, setFound] = useState<SignIn[]>([]);
  const load = (): Promise<void> => api.sessions().then(setFound, complain);
  useEffect(() => void load(), []);
  return (
    <section aria-labelledby="sessions">
      <h2 id="sessions">Where you are signed in</h2>
      <ul class="entries">
        {found.map((one) => (
          <li key={one.id}>
            <div>
              <b>{browserOf(one.agent)}</b>
              <small>
                {one.address}, used <time dateTime={one.used_date}>{ago(one.used_date)}</time>, since{" "}
                <time dateTime={one.created_date}>{day(one.created_date)}</time>
              </small>
            </div>
            {one.current ? (
              <em>this one</em>
            ) : (
              <button type="button" onClick={() => api.endSession(one.id).then(load, complain)}>
                End<span class="hidden"> the session of {browserOf(one.agent)}</span>
              </button>
            )}
          </li>
        ))}
      </ul>
      {found.length > 1 && (
        <button type="button" onClick={() => api.endOtherSessions().then(load, complain)}>
          End all others
        </button>
      )}
    </section>
  );
}

function Tokens() {
  const [found, setFound] = useState<Token[]>([]);
  const [made, setMade] = useState<NewToken | null>(null);
  const [error, setError] = useState("");
  const load = (): Promise<void> => api.tokens().then(setFound, complain);
  useEffect(() => void load(), []);
  const make = (form: HTMLFormElement): void => {
    const given = new FormData(form);
    setError("");
    api
      .makeToken(String(given.get("name")).trim(), given.get("scope") as Token["scope"], Number(given.get("days")))
      .then((fresh) => {
        form.reset();
        setMade(fresh);
        return load();
      })
      .catch((failed: Error) => setError(failed.message));
  };
  return (
    <section aria-labelledby="tokens">
      <h2 id="tokens">API tokens</h2>
      <p class="faint">For programs, which send one as “Authorization: Bearer …”.</p>
      <ul class="entries">
        {found.map((one) => (
          <li key={one.id}>
            <div>
              <b>{one.name}</b>
              <small>
                {one.scope === "read" ? "reads" : "reads and writes"}, until {day(one.expires_date)},{" "}
                {one.used_date ? `used ${ago(one.used_date)}` : "never used"}
              </small>
            </div>
            <button type="button" onClick={() => api.endToken(one.id).then(load, complain)}>
              Revoke<span class="hidden"> {one.name}</span>
            </button>
          </li>
        ))}
      </ul>
      {made && (
        <div class="made" role="status">
          <p>The token “{made.name}”. It is shown this once:</p>
          <Secret label="The new token" value={made.token} />
        </div>
      )}
      <form
        class="line"
        onSubmit={(event) => {
          event.preventDefault();
          make(event.currentTarget);
        }}
      >
        <label>
          What it is for
          <input name="name" required maxLength={50} autocomplete="off" />
        </label>
        <label>
          It may
          <select name="scope">
            <option value="read">read</option>
            <option value="write">read and write</option>
          </select>
        </label>
        <label>
          Days
          <input name="days" type="number" required min={1} max={366} value={90} />
        </label>
        <button type="submit">Make a token</button>
      </form>
      {error && (
        <p class="alert" role="alert">
          {error}
        </p>
      )}
    </section>
  );
}

function ChangePassword({ changed }: { changed: () => void }) {
  const [old, setOld] = useState("");
  const [fresh, setFresh] = useState("");
  const [revoke, setRevoke] = useState(true);
  const [error, setError] = useState("");
  const change = async (): Promise<void> => {
    setError("");
    try {
      await api.changePassword({ old, new: fresh, revoke_tokens: revoke });
      setOld("");
      setFresh("");
      changed();
      const tokens = revoke ? ", and all API tokens are revoked" : "";
      say(`The password is changed. All other sessions have ended${tokens}`);
    } catch (failed) {
      setError(failed instanceof Error ? failed.message : String(failed));
    }
  };
  return (
    <section aria-labelledby="password">
      <h2 id="password">Password</h2>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          if ([...fresh].length < 15) setError("The new password has to have at least 15 characters");
          else void change();
        }}
      >
        <input
          class="hidden"
          name="username"
          autocomplete="username"
          value={user.value?.name}
          readOnly
          tabIndex={-1}
          aria-hidden="true"
        />
        <Password label="The old password" value={old} change={setOld} />
        <NewPassword label="The new password" value={fresh} change={setFresh} />
        <label class="check">
          <input type="checkbox" checked={revoke} onChange={(event) => setRevoke(event.currentTarget.checked)} />
          Revoke all API tokens, too
        </label>
        <small>All other sessions end in any case. Keep the tokens only if nobody else knows the old password.</small>
        <button type="submit" disabled={!old || !fresh}>
          Change it
        </button>
      </form>
      {error && (
        <p class="alert" role="alert">
          {error}
        </p>
      )}
    </section>
  );
}

function DeleteAccount() {
  const [asked, setAsked] = useState(false);
  return (
    <section aria-labelledby="delete">
      <h2 id="delete">Delete your account</h2>
      <p class="faint">You choose who gets your notes. You can export them before.</p>
      <button type="button" class="danger" onClick={() => setAsked(true)}>
        Delete your account…
      </button>
      {asked && <DeletionDialog name={null} remove={deleteOwnAccount} close={() => setAsked(false)} />}
    </section>
  );
}

const day = (date: string): string =>
  new Date(date).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });

/** The name of a browser and its system, as far as what it says of itself tells. */
function browserOf(agent: string | null): string {
  if (!agent) return "A program";
  const browser = /(Edg|Firefox|OPR|Chrome|Safari)(?=\w*\/)/.exec(agent)?.[1];
  const system = /Android|iPhone|iPad|Windows|Mac OS X|Linux/.exec(agent)?.[0];
  const name = browser && ({ Edg: "Edge", OPR: "Opera" }[browser] ?? browser);
  return name ? [name, system?.replace(" OS X", "")].filter(Boolean).join(" on ") : agent.slice(0, 60);
}
