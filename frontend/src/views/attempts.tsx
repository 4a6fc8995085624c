/** Failed sign-in attempts since the last visit, which the server reports after a sign-in. */

import { acknowledge, me } from "../account";
import { complain } from "../notices";

/** The report, above everything until it is dismissed. */
export function Attempts() {
  if (!me.value.failed_sign_ins) return null;
  return (
    <p class="attempts" role="status">
      <Report />
      <button type="button" class="plain" onClick={() => acknowledge().catch(complain)}>
        Dismiss
      </button>
    </p>
  );
}

export function Report() {
  const failed = me.value.failed_sign_ins;
  if (!failed) return null;
  const time = new Date(failed.last_date).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  return (
    <span>
      {failed.count === 1
        ? "1 failed sign-in attempt since your last visit, at "
        : `${failed.count} failed sign-in attempts since your last visit, the latest at `}
      <time dateTime={failed.last_date}>{time}</time>
    </span>
  );
}
