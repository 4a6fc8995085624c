/** For admins: who has an account, whom to invite, and who did what. */

import { useEffect, useState } from "preact/hooks";
import { user } from "../account";
import * as api from "../api";
import { complain } from "../notices";
import { base } from "../root";
import type { Entry, UserListed } from "../types";
import { ago } from "./list";
import { Back } from "./note";
import { Secret } from "./secret";

export function PeoplePane() {
  useEffect(() => {
    document.title = "People – Notes";
  }, []);
  return (
    <section class="pane account" aria-label="People">
      <header class="tools">
        <Back />
        <h1>People</h1>
      </header>
      {user.value?.admin ? (
        <>
          <Users />
          <Invites />
          <Audit />
        </>
      ) : (
        <p class="faint">This is for admins.</p>
      )}
    </section>
  );
}

function Users() {
  const [found, setFound] = useState<UserListed[]>([]);
  useEffect(() => {
    api.users().then(setFound, complain);
  }, []);
  const set = (name: string, disabled: boolean): void => {
    api
      .setDisabled(name, disabled)
      .then((now) => setFound((all) => all.map((one) => (one.name === name ? now : one))), complain);
  };
  return (
    <section aria-labelledby="users">
      <h2 id="users">Accounts</h2>
      <ul class="entries">
        {found.map(({ name, admin, disabled, created_date }) => (
          <li key={name}>
            <div>
              <b>{name}</b>
              <small>
                {[admin && "admin", disabled && "disabled"].filter(Boolean).map((word) => `${word}, `)}
                here since {ago(created_date)}
              </small>
            </div>
            {name !== user.value?.name && (
              <button type="button" onClick={() => set(name, !disabled)}>
                {disabled ? "Enable" : "Disable"}
                <span class="hidden"> {name}</span>
              </button>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Invites() {
  const [made, setMade] = useState("");
  const make = (): void => {
    api.invite().then(({ invite }) => setMade(`${base()}/invite#${invite}`), complain);
  };
  return (
    <section aria-labelledby="invites">
      <h2 id="invites">Invites</h2>
      <p class="faint">An invite is for one account, and good for a week.</p>
      <button type="button" onClick={make}>
        Make an invite
      </button>
      {made && (
        <div class="made" role="status">
          <p>Give this address to whom you invite. It is shown this once:</p>
          <Secret label="The address of the invite" value={made} />
        </div>
      )}
    </section>
  );
}

function Audit() {
  const [entries, setEntries] = useState<Entry[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const [who, setWho] = useState("");
  const show = (page: api.Page<Entry>, before: Entry[] = []): void => {
    setEntries([...before, ...page.items]);
    setNext(page.next);
  };
  const load = (): void => {
    api.audit(who.trim()).then(show, complain);
  };
  useEffect(load, []);
  return (
    <section aria-labelledby="audit">
      <h2 id="audit">Who did what</h2>
      <form
        class="line"
        onSubmit={(event) => {
          event.preventDefault();
          load();
        }}
      >
        <label>
          Only by
          <input
            value={who}
            maxLength={32}
            autocomplete="off"
            autocapitalize="none"
            onInput={(event) => setWho(event.currentTarget.value)}
          />
        </label>
        <button type="submit">Show</button>
      </form>
      <section class="table" tabIndex={0} aria-labelledby="audit">
        <table>
          <thead>
            <tr>
              <th scope="col">When</th>
              <th scope="col">Who</th>
              <th scope="col">What</th>
              <th scope="col">To what</th>
              <th scope="col">From</th>
            </tr>
          </thead>
          <tbody>
            {entries.map((one, at) => (
              <tr key={at}>
                <td>
                  <time dateTime={one.date}>{new Date(one.date).toLocaleString()}</time>
                </td>
                <td>{one.who ?? "–"}</td>
                <td>
                  {one.action}
                  {one.ok ? "" : " (refused)"}
                </td>
                <td>{one.target ?? "–"}</td>
                <td>{one.address ?? "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      {next && (
        <button type="button" onClick={() => api.auditAfter(next).then((page) => show(page, entries), complain)}>
          More
        </button>
      )}
    </section>
  );
}
