/** A link within the page: a real one, so that it can be opened in another tab, but followed without a reload. */

import type { ComponentChildren } from "preact";
import { addressOf } from "../root";
import { go, path, type Route } from "../router";

interface Props {
  to: Route;
  children: ComponentChildren;
  class?: string;
  at?: number;
  current?: boolean;
}

export function Link({ to, children, at, current, ...more }: Props) {
  return (
    <a
      {...more}
      href={addressOf(path(to))}
      data-at={at}
      aria-current={current ? "page" : undefined}
      onClick={(event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
        event.preventDefault();
        go(to);
      }}
    >
      {children}
    </a>
  );
}
