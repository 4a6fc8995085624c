/** For admins: who has an account, whom to invite, and who did what. */

import { useEffect, useState } from "preact/hooks";
import { user } from "../account";
import * as api from "../api";
import { complain } from "../notices";
import { base } from "../root";
import type { Entry, Invite, InviteListed, UserListed } from "../types";
import { DeletionDialog } from "./deletion";
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
  const [leaving, setLeaving] = useState<string | null>(null);
  useEffect(() => {
    api.users().then(setFound, complain);
  }, []);
  const change = (changed: Promise<UserListed>): void => {
    changed.then((now) => setFound((all) => all.map((one) => (one.name === now.name ? now : one))), complain);
  };
  const remove = async (name: string, to: string): Promise<void> => {
    await api.deleteAccount(name, to);
    setFound((all) => all.filter((one) => one.name !== name));
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
                {[admin && "administrator", disabled && "disabled"].filter(Boolean).map((word) => `${word}, `)}
                here since {ago(created_date)}
              </small>
            </div>
            {name !== user.value?.name && (
              <span class="choices">
                <button type="button" onClick={() => change(api.setAdmin(name, !admin))}>
                  {admin ? "Take administrator role" : "Make administrator"}
                  <span class="hidden">
                    {admin ? " from" : ""} {name}
                  </span>
                </button>
                <button type="button" onClick={() => change(api.setDisabled(name, !disabled))}>
                  {disabled ? "Enable" : "Disable"}
                  <span class="hidden"> {name}</span>
                </button>
                <button type="button" onClick={() => setLeaving(name)}>
                  Delete…<span class="hidden"> {name}</span>
                </button>
              </span>
            )}
          </li>
        ))}
      </ul>
      {leaving !== null && (
        <DeletionDialog name={leaving} remove={(to) => remove(leaving, to)} close={() => setLeaving(null)} />
      )}
    </section>
  );
}

function Invites() {
  const [found, setFound] = useState<InviteListed[]>([]);
  const [made, setMade] = useState<Invite | null>(null);
  const load = (): Promise<void> => api.invites().then(setFound, complain);
  useEffect(() => void load(), []);
  const make = async (): Promise<void> => {
    setMade(await api.invite());
    await load();
  };
  const revoke = async (id: string): Promise<void> => {
    await api.revokeInvite(id);
    if (made?.id === id) setMade(null);
    await load();
  };
  return (
    <section aria-labelledby="invites">
      <h2 id="invites">Invites</h2>
      <p class="faint">An invite is for one account, and good for a week.</p>
      <ul class="entries">
        {found.map((one) => (
          <li key={one.id}>
            <div>
              <b>By {one.by}</b>
              <small>
                created {ago(one.created_date)}, good until{" "}
                <time dateTime={one.expires_date}>{new Date(one.expires_date).toLocaleString()}</time>
              </small>
            </div>
            <button type="button" onClick={() => revoke(one.id).catch(complain)}>
              Revoke<span class="hidden"> the invite by {one.by}</span>
            </button>
          </li>
        ))}
      </ul>
      <button type="button" onClick={() => make().catch(complain)}>
        Make an invite
      </button>
      {made && (
        <div class="made" role="status">
          <p>Give this address to the person you invite. It is shown this once:</p>
          <Secret label="The address of the invite" value={`${base()}/invite#${made.invite}`} />
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
