/** A part of the page that fails alone. */

import { Component, type ComponentChildren } from "preact";

interface Props {
  /** What is shown: another one is tried again. */
  of: string;
  children: ComponentChildren;
}

/** Shows that a part failed, in its place, and lets the rest of the page work. */
export class Boundary extends Component<Props, { failed: string | null }> {
  override state = { failed: null };

  static getDerivedStateFromError(): { failed: string } {
    return { failed: "" };
  }

  override componentDidCatch(error: unknown): void {
    console.error(error);
    this.setState({ failed: this.props.of });
  }

  override componentDidUpdate(): void {
    const { failed } = this.state as { failed: string | null };
    if (failed && failed !== this.props.of) this.setState({ failed: null });
  }

  override render(): ComponentChildren {
    if (this.state.failed === null) return this.props.children;
    return (
      <section class="pane gone" role="alert">
        <p>This part of the page has failed. Your words are kept.</p>
        <button type="button" onClick={() => this.setState({ failed: null })}>
          Try again
        </button>
      </section>
    );
  }
}
