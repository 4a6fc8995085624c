/** The bundles that Swagger UI and ReDoc publish without types: what is used of them. */

declare module "swagger-ui-dist/swagger-ui-es-bundle.js" {
  const SwaggerUIBundle: ((options: Record<string, unknown>) => unknown) & { presets: { apis: unknown } };
  export default SwaggerUIBundle;
}

declare module "swagger-ui-dist/oauth2-redirect.js";

declare module "redoc/bundles/redoc.standalone.js" {
  export function init(address: string, options: Record<string, unknown>, element: Element | null): void;
}
